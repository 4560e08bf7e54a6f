//! Measures what a flush, a look for new commits, a fresh reader and a select take on a store.
//!
//! `cargo run --release -p tsdb --example table_latency -- URL [flushes] [series of each] [samples of each series]`
//!
//! URL is `file:///folder` or `s3://bucket/prefix`; the latter takes its server and keys from the `AWS_...` variables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Clock, Labels, Matcher, Tenant, Timestamp};
use tsdb::StorageSettings;
use tsdb::series::{FloatColumn, SeriesRow, SeriesSamples, Timeline};
use tsdb::table::{SelectLimits, Table};

const START: i64 = 1_800_000_000_000;

#[tokio::main]
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("want a URL")?;
    let numbers: Vec<usize> = arguments.map(|a| a.parse()).collect::<Result<_, _>>()?;
    let number = |i: usize, default: usize| numbers.get(i).copied().unwrap_or(default);
    let (flushes, series, samples) = (number(0, 50), number(1, 10_000), number(2, 60));
    let mut settings = StorageSettings::default();
    settings.override_with(Some(&url), &std::env::vars().collect::<BTreeMap<_, _>>());
    let location = settings.location(std::path::Path::new("")).map_err(|faults| faults.join("\n"))?;
    let clock = Clock::fixed(Timestamp(START));
    let tenant = Tenant::default();

    let table = Table::open_in(&location, clock.clone()).await?;
    let (mut writing, mut committing, mut looking) = (Vec::new(), Vec::new(), Vec::new());
    for flush in 0..flushes as u64 {
        let rows = rows(flush, series, samples);
        let begin = Instant::now();
        let files = table.write_files("log", flush, vec![(tenant.clone(), rows)]).await?;
        writing.push(begin.elapsed());
        if flush == 0 {
            println!("a flush: {} file(s), {} bytes", files.len(), files[0].data_file().size);
        }
        let begin = Instant::now();
        table.commit_flush("log", flush.checked_sub(1), flush, files).await?;
        committing.push(begin.elapsed());
        let begin = Instant::now();
        table.snapshot(None).await?;
        looking.push(begin.elapsed());
    }
    print("encode and write the files of a flush", &mut writing);
    print("commit a flush", &mut committing);
    print("look for new commits, none there", &mut looking);

    let (mut opening, mut selecting, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let one = [Matcher::equal("__name__", "m00007")];
    for _ in 0..10 {
        let begin = Instant::now();
        let reader = Table::open_in(&location, clock.clone()).await?;
        let snapshot = reader.snapshot(None).await?;
        opening.push(begin.elapsed());
        let until = START + 900_000;
        let begin = Instant::now();
        let found = snapshot.select(&tenant, &one, START, until - 1, SelectLimits::NONE).await?;
        selecting.push(begin.elapsed());
        assert_eq!(found.len(), series.min(10));
        let begin = Instant::now();
        let found = snapshot.select(&tenant, &one, START, i64::MAX, SelectLimits::NONE).await?;
        whole.push(begin.elapsed());
        assert_eq!(found.len(), series.min(10));
    }
    print(&format!("open a reader of {flushes} commits, with its snapshot"), &mut opening);
    print("select ten series of one file", &mut selecting);
    print(&format!("select ten series of {flushes} files"), &mut whole);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p90 {:?}, max {:?}", at(50), at(90), at(100));
}

/// Ten series a metric; each flush holds a quarter of an hour.
fn rows(flush: u64, series: usize, samples: usize) -> Vec<SeriesRow> {
    let begin = START + i64::try_from(flush).expect("small") * 900_000;
    let step = 900_000 / i64::try_from(samples).expect("small");
    let timestamps: Timeline = (0..samples as i64).map(|i| begin + i * step).collect();
    let row = |n: usize| SeriesRow {
        labels: Labels::from_pairs([
            ("__name__", format!("m{:05}", n / 10).as_str()),
            ("instance", format!("i{}", n % 10).as_str()),
        ]),
        metadata: Arc::default(),
        samples: SeriesSamples {
            floats: FloatColumn {
                timestamps: Arc::clone(&timestamps),
                values: (0..samples).map(|i| (n * 7 + i * (n % 13)) as f64).collect(),
            },
            ..SeriesSamples::default()
        },
    };
    (0..series).map(row).collect()
}
