//! The public parser cases of OpenMetrics and Prometheus.

use std::collections::BTreeSet;
use std::fs;

use exposition::{Entry, Parser};

use crate::shared_folder;

/// Cases that a strict OpenMetrics parser refuses and that the reference scraper takes: it checks the syntax, and leaves
/// alone which samples a type may have, the order and grouping of families, repeated metadata, histogram buckets, the
/// values of counters, exemplars where none belong or longer than 128 characters, and duplicate labels (refused later).
const LENIENT: [&str; 48] = [
    "bad_clashing_names_1",
    "bad_clashing_names_2",
    "bad_counter_values_0",
    "bad_counter_values_1",
    "bad_counter_values_10",
    "bad_counter_values_11",
    "bad_counter_values_12",
    "bad_counter_values_15",
    "bad_counter_values_18",
    "bad_counter_values_2",
    "bad_counter_values_4",
    "bad_counter_values_6",
    "bad_counter_values_8",
    "bad_counter_values_9",
    "bad_exemplar_complex_chars",
    "bad_exemplars_6",
    "bad_exemplars_on_unallowed_metric_types_0",
    "bad_exemplars_on_unallowed_metric_types_1",
    "bad_exemplars_on_unallowed_samples_0",
    "bad_exemplars_on_unallowed_samples_2",
    "bad_grouping_or_ordering_10",
    "bad_grouping_or_ordering_2",
    "bad_grouping_or_ordering_5",
    "bad_grouping_or_ordering_6",
    "bad_grouping_or_ordering_7",
    "bad_grouping_or_ordering_8",
    "bad_histograms_0",
    "bad_histograms_10",
    "bad_histograms_12",
    "bad_histograms_3",
    "bad_histograms_6",
    "bad_histograms_8",
    "bad_histograms_9",
    "bad_info_and_stateset_values_0",
    "bad_invalid_labels_5",
    "bad_metadata_in_wrong_place_0",
    "bad_metadata_in_wrong_place_2",
    "bad_missing_or_invalid_labels_for_a_type_0",
    "bad_missing_or_invalid_labels_for_a_type_1",
    "bad_missing_or_invalid_labels_for_a_type_4",
    "bad_missing_or_invalid_labels_for_a_type_5",
    "bad_missing_or_invalid_labels_for_a_type_6",
    "bad_repeated_metadata_1",
    "bad_repeated_metadata_3",
    "bad_stateset_info_values_0",
    "bad_stateset_info_values_1",
    "bad_unit_6",
    "bad_unit_7",
];

#[test]
fn open_metrics_cases() {
    let Some(folder) = shared_folder("conformance", "conformance/exposition/openmetrics") else {
        return;
    };
    let mut taken = BTreeSet::new();
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        cases += 1;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let case: serde_json::Value =
            serde_json::from_slice(&fs::read(path.join("test.json")).unwrap()).unwrap();
        let body = fs::read(path.join("metrics")).unwrap();
        let result: Result<Vec<_>, _> = Parser::open_metrics(&body).collect();
        match (&result, case["shouldParse"].as_bool().unwrap()) {
            (Err(error), true) => panic!("{name}: {error}"),
            (Ok(_), false) => {
                taken.insert(name);
            }
            _ => {}
        }
    }
    assert!(cases > 100, "{cases} cases");
    let lenient: BTreeSet<String> = LENIENT.iter().map(|s| (*s).to_owned()).collect();
    assert_eq!(taken, lenient);
}

/// Every sample line of the big bodies is one sample, and its labels can be built.
#[test]
fn bodies_of_all_types() {
    let Some(folder) = shared_folder("conformance", "conformance/exposition/textparse") else {
        return;
    };
    for (file, is_open_metrics) in [
        ("alltypes.237mfs.prom.txt", false),
        ("alltypes.237mfs.nometa.prom.txt", false),
        ("alltypes.5mfs.om.txt", true),
        ("1histogram.om.txt", true),
    ] {
        let mut body = fs::read(folder.join(file)).unwrap();
        if is_open_metrics && !body.ends_with(b"# EOF\n") && !body.ends_with(b"# EOF") {
            body.extend(b"# EOF\n");
        }
        let parser = if is_open_metrics { Parser::open_metrics(&body) } else { Parser::text(&body) };
        let mut samples = 0;
        for entry in parser {
            if let Entry::Sample(sample) = entry.unwrap_or_else(|e| panic!("{file}: {e}")) {
                assert!(!sample.series.to_labels().unwrap().metric_name().is_empty());
                samples += 1;
            }
        }
        let lines = body.split(|b| *b == b'\n').filter(|l| !l.is_empty() && !l.starts_with(b"#")).count();
        assert_eq!(samples, lines, "{file}");
    }
}
