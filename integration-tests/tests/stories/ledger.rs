//! What a client knows that it wrote, and what foreign readers find in the table.

use std::collections::BTreeMap;

use integration_tests::{Server, python, repository};
use model::Labels;
use serde_json::Value;

/// Tenant, labels as JSON, milliseconds.
pub(crate) type Key = (String, String, i64);

/// A float sample's bits by where it belongs; `None` for a staleness marker.
pub(crate) type Floats = BTreeMap<Key, Option<u64>>;

/// What DuckDB reads from the files that deltalake calls live.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) floats: Floats,
    pub(crate) histograms: BTreeMap<Key, Value>,
}

/// Labels as JSON, sorted by name.
pub(crate) fn json(labels: &Labels) -> String {
    let map: BTreeMap<_, _> = labels.iter().collect();
    serde_json::to_string(&map).expect("strings")
}

/// Reads the table of a server with readers that are not ours. A sample that is there twice is a fault.
pub(crate) fn read_table(server: &Server) -> Table {
    read(server, false)
}

/// As [`read_table`] for a cluster whose writers had to go to another ingester: what they sent again may be there again.
pub(crate) fn read_table_merged(server: &Server) -> Table {
    read(server, true)
}

fn read(server: &Server, takes_repeats: bool) -> Table {
    let sql = repository().join("shared/tsdb/testdata/samples.sql");
    let printed = python("read_table.py", [server.table(), sql]);
    let mut table = Table { floats: Floats::new(), histograms: BTreeMap::new() };
    for line in printed.lines() {
        let sample: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"));
        let labels: BTreeMap<String, String> = serde_json::from_value(sample["labels"].clone())
            .unwrap_or_else(|e| panic!("no labels ({e}): {line}"));
        let text = serde_json::to_string(&labels).expect("strings");
        let tenant = sample["tenant"].as_str().unwrap_or_else(|| panic!("no tenant: {line}"));
        let time = sample["t"].as_i64().unwrap_or_else(|| panic!("no time: {line}"));
        let key = (tenant.to_owned(), text, time);
        let is_new = if sample["histogram"].is_null() {
            let bits = sample["bits"].as_str().map(|hex| u64::from_str_radix(hex, 16).expect("hexadecimal"));
            table.floats.insert(key, bits).is_none_or(|before| takes_repeats && before == bits)
        } else {
            table.histograms.insert(key, sample["histogram"].clone()).is_none()
        };
        assert!(is_new, "there twice: {line}");
    }
    table
}

/// The first few entries that differ.
pub(crate) fn differences<V: PartialEq + std::fmt::Debug>(
    got: &BTreeMap<Key, V>,
    want: &BTreeMap<Key, V>,
) -> Vec<String> {
    let extra = got.keys().filter(|k| !want.contains_key(*k)).map(|k| format!("not written: {k:?}"));
    let other = want.iter().filter_map(|(key, value)| match got.get(key) {
        Some(found) if found == value => None,
        found => Some(format!("{key:?}: {found:?}, not {value:?}")),
    });
    extra.chain(other).take(10).collect()
}
