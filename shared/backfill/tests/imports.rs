//! Imports into a table in a folder, and reads it back. Debian's promtool makes blocks of the same text: what it made of
//! it is what must be in the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backfill::{Error, ImportedDay, Progress, Result, Summary, import_directory, import_open_metrics};
use model::{Clock, Labels, MetricType, Tenant};
use tempfile::TempDir;
use test_kit::part;
use tokio::runtime::Runtime;
use tsdb::Location;
use tsdb::import::{ImportOptions, Importer};
use tsdb::series::SeriesRow;
use tsdb::table::{SelectLimits, Table};

const MINUTE: i64 = 60_000;
/// 2024-02-28 22:00 UTC.
const START: i64 = 1_709_157_600_000;

struct Bench {
    runtime: Runtime,
    folder: TempDir,
    table: Arc<Table>,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::folder(&folder.path().join("out"));
        let table = runtime.block_on(Table::open_in(&location, Clock::System)).expect("opens");
        Self { runtime, folder, table }
    }

    fn importer(&self) -> Importer {
        let options = ImportOptions {
            tenant: Tenant::default(),
            memory_bytes_max: 64 << 10,
            scratch: self.folder.path().join("scratch"),
        };
        self.runtime.block_on(Importer::new(Arc::clone(&self.table), options)).expect("opens")
    }

    fn text(&self, text: &str) -> Result<(Summary, Vec<ImportedDay>)> {
        let file = self.folder.path().join("text");
        fs::write(&file, text).expect("written");
        let mut days = Vec::new();
        let mut report = |day: &ImportedDay| days.push(day.clone());
        let summary = import_open_metrics(&file, &mut self.importer(), &Progress::default(), &mut report)?;
        Ok((summary, days))
    }

    fn directory(&self, folder: &Path, damages: Option<&mut Vec<String>>) -> Result<Summary> {
        let mut damages = damages;
        let mut damage = |error: prometheus_tsdb::Error| match &mut damages {
            Some(list) => {
                list.push(error.to_string());
                Ok(())
            }
            None => Err(error),
        };
        import_directory(folder, &mut self.importer(), &Progress::default(), &mut |_| {}, &mut damage)
    }

    fn rows(&self) -> Vec<SeriesRow> {
        self.runtime.block_on(async {
            let snapshot = self.table.snapshot(None).await.expect("a snapshot");
            let rows = snapshot.select(&Tenant::default(), &[], i64::MIN, i64::MAX, SelectLimits::NONE).await;
            rows.expect("selects")
        })
    }

    fn samples(&self) -> Samples {
        let floats = |row: &SeriesRow| row.samples.floats.iter().map(|(t, v)| (t, v.to_bits())).collect();
        self.rows().iter().map(|row| (row.labels.to_string(), floats(row))).collect()
    }
}

/// Bits of floats by time and series.
type Samples = BTreeMap<String, BTreeMap<i64, u64>>;

/// Some series over three days of February 2024, and the text that has them, in order of time.
fn fixture() -> (String, Samples) {
    let mut text = String::new();
    let mut samples = Samples::new();
    for step in 0..700_i64 {
        let time = START + step * 3 * MINUTE + step % 7;
        for series in 0..5_i64 {
            let labels = Labels::from_pairs([
                ("__name__".to_owned(), format!("metric_{}", series % 2)),
                ("Zone".to_owned(), format!("z\u{e4}\\{series}\"")),
                ("le".to_owned(), format!("{series}.5")),
            ]);
            let value = match (step + series) % 50 {
                7 => f64::INFINITY,
                8 => -0.0,
                9 => f64::NAN,
                n => (n * step) as f64 / 8.0,
            };
            let value = if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0001) } else { value };
            let shown = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
            let zone = labels.value("Zone").replace('\\', r"\\").replace('"', "\\\"");
            writeln!(
                text,
                "metric_{}{{Zone=\"{zone}\",le=\"{series}.5\"}} {shown} {}.{:03}",
                series % 2,
                time / 1000,
                time % 1000
            )
            .expect("a string");
            samples.entry(labels.to_string()).or_default().insert(time, value.to_bits());
        }
    }
    text.push_str("# EOF\n");
    (text, samples)
}

fn blocks(folder: &Path, text: &str) -> PathBuf {
    let (input, output) = (folder.join("input"), folder.join("blocks"));
    fs::write(&input, text).expect("written");
    let made = Command::new(part("prometheus/usr/bin/promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&input, &output])
        .output()
        .expect("promtool starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    output
}

#[test]
fn text_and_promtools_blocks_of_it_come_to_the_same() {
    let (text, want) = fixture();
    let by_text = Bench::new();
    let (summary, days) = by_text.text(&text).expect("imports");
    assert_eq!(summary, Summary { imported: 3, passed_over: 0 });
    let names: Vec<&str> = days.iter().map(|d| d.day.as_str()).collect();
    assert_eq!(names, ["2024-02-28", "2024-02-29", "2024-03-01"]);
    assert_eq!(days.iter().map(|d| d.samples).sum::<u64>(), 3500);
    assert_eq!(by_text.samples(), want);
    // Lines in any other order are the same samples, but another text.
    assert_eq!(by_text.text(&text).expect("imports").0, Summary { imported: 0, passed_over: 3 });

    let by_blocks = Bench::new();
    let folder = tempfile::tempdir().expect("a folder");
    let blocks = blocks(folder.path(), &text);
    assert!(fs::read_dir(&blocks).expect("a folder").count() > 10, "blocks of two hours");
    assert_eq!(by_blocks.directory(&blocks, None).expect("imports"), Summary { imported: 3, passed_over: 0 });
    assert_eq!(by_blocks.samples(), want);
    assert_eq!(by_blocks.directory(&blocks, None).expect("imports"), Summary { imported: 0, passed_over: 3 });
    assert_eq!(by_blocks.samples(), want);
}

#[test]
fn what_a_text_says_of_its_metrics_is_kept() {
    let bench = Bench::new();
    let text = "# TYPE requests counter\n# HELP requests How many.\n# UNIT bytes_seconds seconds\n\
        # TYPE requests counter\n# HELP requests How many.\nrequests_total{a=\"b\"} 1 1709157600 # {id=\"x\"} 0.5\n\
        other 2 1709157600.5\nrequests_total{a=\"b\"} 3 1709157500\n# EOF";
    bench.text(text).expect("imports");
    let rows = bench.rows();
    let [other, requests] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((other.metadata.kind, requests.metadata.kind), (MetricType::Unknown, MetricType::Counter));
    assert_eq!(&*requests.metadata.help, "How many.");
    let floats: Vec<_> = requests.samples.floats.iter().collect();
    assert_eq!(floats, [(1_709_157_500_000, 3.0), (1_709_157_600_000, 1.0)]);
    let [exemplar] = &*requests.samples.exemplars else { panic!("{requests:?}") };
    assert_eq!((exemplar.value, exemplar.timestamp.map(|t| t.millis())), (0.5, Some(1_709_157_600_000)));
}

/// As promtool 2.42 puts it; nothing is imported.
#[test]
fn wrong_texts_are_refused_in_promtools_words() {
    const FRONT: &str = "getting min and max timestamp: ";
    for (text, want) in [
        ("a 1 1600000000\n", "next: data does not end with # EOF"),
        ("a 1 1600000000", "next: data does not end with # EOF"),
        ("", "next: data does not end with # EOF"),
        ("# EOF\na 1 1\n", "next: unexpected data after # EOF"),
        ("a 1\n# EOF\n", "expected timestamp for series got none: a"),
        ("a 1 1600000000\nb x 3\n# EOF\n", "next: strconv.ParseFloat: parsing \"x\": invalid syntax"),
    ] {
        let bench = Bench::new();
        let error = bench.text(text).expect_err("refused").to_string();
        assert!(error.starts_with(&format!("{FRONT}{want}")), "{text:?}: {error}");
        assert!(bench.rows().is_empty());
    }
    let bench = Bench::new();
    assert_eq!(bench.text("# EOF\n").expect("nothing to do").0, Summary::default());
}

/// A text of several pieces, with a line feed within a quoted name wherever a piece may end.
#[test]
fn a_text_longer_than_a_piece_is_read_on() {
    let bench = Bench::new();
    let count = 140_000;
    let line = |i: i64| format!("{{\"a\nname\",n=\"{}\"}} {i} {}\n", i % 3, 1_709_157_600 + i);
    let text: String = (0..count).map(line).chain(["# EOF\n".to_owned()]).collect();
    assert!(text.len() > 4 << 20);
    bench.text(&text).expect("imports");
    let samples = bench.samples();
    assert_eq!(samples.len(), 3);
    for (i, series) in samples.values().enumerate() {
        let want: BTreeMap<i64, u64> = (0..count)
            .filter(|n| n % 3 == i64::try_from(i).expect("small"))
            .map(|n| (1_709_157_600_000 + n * 1000, (n as f64).to_bits()))
            .collect();
        assert_eq!(*series, want);
    }
}

/// Whatever byte of a block is damaged: an error that names the file, or the same samples; with the damage passed over,
/// no sample that was not there.
#[test]
fn damaged_blocks_are_named_and_never_give_wrong_values() {
    let (text, _) = fixture();
    let text: String =
        text.lines().take(400).map(|line| format!("{line}\n")).chain(["# EOF\n".to_owned()]).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let blocks = blocks(folder.path(), &text);
    let whole = Bench::new();
    whole.directory(&blocks, None).expect("imports");
    let want = whole.samples();
    let mut named = 0;
    let block = fs::read_dir(&blocks)
        .expect("a folder")
        .flatten()
        .map(|e| e.path())
        .find(|p| p.join("index").exists());
    let block = block.expect("a block");
    for file in ["index", "chunks/000001", "meta.json", "tombstones"] {
        let path = block.join(file);
        let bytes = fs::read(&path).expect("there");
        let places = (0..bytes.len()).step_by((bytes.len() / 6).max(1)).chain([bytes.len() - 1]);
        for place in places {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            fs::write(&path, &damaged).expect("written");
            let strict = Bench::new();
            match strict.directory(&blocks, None) {
                Ok(_) => assert!(is_part(&strict.samples(), &want), "{file} at {place}"),
                Err(Error::Directory(error)) => {
                    named += 1;
                    assert!(
                        error.to_string().contains(&block.display().to_string()),
                        "{file} at {place}: {error}"
                    );
                }
                Err(error) => panic!("{file} at {place}: {error}"),
            }
            let lenient = Bench::new();
            let mut damages = Vec::new();
            lenient.directory(&blocks, Some(&mut damages)).expect("imports the rest");
            assert!(is_part(&lenient.samples(), &want), "{file} at {place}");
            if damages.is_empty() {
                assert!(file == "meta.json" || lenient.samples() == want, "{file} at {place}");
            }
        }
        fs::write(&path, &bytes).expect("mended");
    }
    assert!(named > 10, "{named}");
    // What was imported without its damaged part is imported anew once that is mended.
    let path = block.join("chunks/000001");
    let bytes = fs::read(&path).expect("there");
    let mut damaged = bytes.clone();
    damaged[bytes.len() - 1] ^= 1;
    fs::write(&path, &damaged).expect("written");
    let bench = Bench::new();
    let mut damages = Vec::new();
    // The last chunk is one of the first day or of the second, which the text reaches into.
    assert_eq!(bench.directory(&blocks, Some(&mut damages)).expect("imports").imported, 2);
    assert_eq!(bench.directory(&blocks, Some(&mut damages)).expect("imports").imported, 0);
    assert_eq!(damages.len(), 2, "told each time: {damages:?}");
    assert_ne!(bench.samples(), want);
    fs::write(&path, &bytes).expect("mended");
    assert_eq!(bench.directory(&blocks, None).expect("imports").imported, 1);
    assert_eq!(bench.samples(), want);
}

fn is_part(some: &Samples, all: &Samples) -> bool {
    some.iter().all(|(series, samples)| {
        let known = all.get(series);
        known.is_some_and(|known| samples.iter().all(|(t, bits)| known.get(t) == Some(bits)))
    })
}

#[test]
fn a_folder_without_data_is_refused() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().expect("a folder");
    let error = bench.directory(folder.path(), None).expect_err("nothing there");
    assert!(error.to_string().ends_with("not the data directory of a Prometheus"), "{error}");
    let error = bench.directory(&folder.path().join("absent"), None).expect_err("nothing there");
    assert_eq!(error.kind(), fault::Kind::NotFound);
}
