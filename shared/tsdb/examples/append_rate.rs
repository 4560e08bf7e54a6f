//! Measures how many samples a second a storage takes on the group path, and what a series costs in memory.
//!
//! `cargo run --release -p tsdb --example append_rate -- [targets] [series of each] [scrapes]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Clock, Labels, Tenant, Timestamp};
use object_store::memory::InMemory;
use tsdb::table::{Table, TableOptions};
use tsdb::{GroupAppend, GroupDeclaration, MemberDeclaration, Presence, Storage, StorageOptions};

const START: i64 = 1_800_000_000_000;

#[tokio::main]
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let number = |i: usize, default: usize| numbers.get(i).copied().unwrap_or(default);
    let (targets, members, scrapes) = (number(0, 100), number(1, 1000), number(2, 60));
    let dir = std::env::temp_dir().join(format!("append-rate-{}", std::process::id()));
    let clock = Clock::fixed(Timestamp(START));
    let runtime = tokio::runtime::Handle::current();
    let store = Arc::new(InMemory::new());
    let table = Table::open(TableOptions {
        store,
        prefix: "metrics".into(),
        clock: clock.clone(),
        runtime: runtime.clone(),
        request_cost_bytes: 64 << 10,
        cache_bytes: 0,
    })
    .await?;
    let options = StorageOptions {
        queue_bytes_max: 256 << 20,
        commit_delay: Duration::from_millis(2),
        ..StorageOptions::new(&dir, table, clock.clone(), runtime)
    };
    let storage = Storage::open(options).await?;

    let begin = Instant::now();
    let mut groups = Vec::new();
    for target in 0..targets {
        groups.push(storage.declare(declaration(target, members))?);
    }
    let declared = begin.elapsed();
    let mut values: Vec<f64> = (0..members).map(|m| (m * 17) as f64).collect();
    let begin = Instant::now();
    let mut submitting = Duration::ZERO;
    for scrape in 0..scrapes {
        let t = START + 15_000 * scrape as i64;
        clock.set(Timestamp(t));
        for (m, value) in values.iter_mut().enumerate() {
            *value += (m % 5 * (scrape % 3)) as f64;
        }
        let mut waiting = Vec::new();
        for group in &groups {
            let append = GroupAppend {
                group: *group,
                timestamp: Timestamp(t),
                absent: Presence::All,
                values: values.clone(),
                histograms: Vec::new(),
                start_timestamps: Vec::new(),
                exemplars: Vec::new(),
            };
            let begin = Instant::now();
            waiting.push(storage.append(vec![append], false));
            submitting += begin.elapsed();
        }
        for done in waiting {
            done.await?;
        }
    }
    let appended = begin.elapsed();
    let series = targets * members;
    let samples = series * scrapes;
    let rate = |d: Duration| samples as f64 / d.as_secs_f64() / 1e6;
    println!("declared {series} series in {declared:?}");
    println!("appended {samples} samples in {appended:?}: {:.1} M samples/s durable", rate(appended));
    println!("on the caller's side alone: {:.1} M samples/s", rate(submitting));
    println!("log: {:.2} bytes a sample", storage.stats().log_bytes as f64 / samples as f64);
    println!("head: {} bytes a series without its index", storage.head_bytes() / series);
    let begin = Instant::now();
    let report = storage.flush().await?;
    println!("flushed {} rows in {:?}", report.rows, begin.elapsed());
    drop(storage);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn declaration(target: usize, members: usize) -> GroupDeclaration {
    let instance = format!("10.0.{}.{}:9100", target / 256, target % 256);
    let member = |m: usize| {
        let labels = Labels::from_pairs([
            ("__name__", format!("metric_number_{}_total", m / 10)),
            ("instance", instance.clone()),
            ("job", "node".to_owned()),
            ("cpu", (m % 10).to_string()),
            ("namespace", format!("ns-{}", target % 7)),
        ]);
        MemberDeclaration { labels, metadata: Arc::default() }
    };
    GroupDeclaration {
        tenant: Tenant::default(),
        key: Labels::from_pairs([("job", "node"), ("instance", instance.as_str())]),
        sub_group: 0,
        epoch: 0,
        displaced: false,
        members: (0..members).map(member).collect(),
    }
}
