//! How long typical queries take over series in memory: 10,000 counters of 500 targets, a sample every 15 s for two
//! hours, counters of one target on one timeline. Prints the best of a few runs of each query.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::matcher::Matcher;
use model::{Labels, Timestamp};
use promql_engine::{
    Column, Control, Engine, EngineOptions, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError,
};

const TARGETS: i64 = 500;
const SERIES_OF_TARGET: i64 = 20;
const INTERVAL_MS: i64 = 15_000;
const SAMPLES: i64 = 480;
const RUNS: usize = 5;

struct Memory {
    series: Vec<(Labels, Column<f64>)>,
}

impl Memory {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn new() -> Self {
        let mut series = Vec::new();
        for target in 0..TARGETS {
            let timeline: Arc<[i64]> = (0..SAMPLES).map(|i| i * INTERVAL_MS + target).collect();
            for code in 0..SERIES_OF_TARGET {
                let labels = Labels::from_pairs([
                    ("__name__", "requests_total".to_owned()),
                    ("code", format!("{}", 200 + code)),
                    ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
                    ("job", format!("job{}", target % 10)),
                ]);
                let values = (0..SAMPLES).map(|i| (i * (code + 1)) as f64).collect();
                series.push((labels, Column::new(Arc::clone(&timeline), values)));
            }
        }
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Self { series }
    }
}

impl SeriesSource for Memory {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let matching = self.series.iter().filter(|(l, _)| Matcher::all_match(&selection.matchers, l));
        let (labels, samples): (Vec<Labels>, Vec<SeriesSamples>) = matching
            .map(|(l, c)| (l.clone(), SeriesSamples { floats: c.clone(), ..SeriesSamples::default() }))
            .unzip();
        Ok(Box::new(Selected { labels, samples: samples.into_iter() }))
    }
}

struct Selected {
    labels: Vec<Labels>,
    samples: std::vec::IntoIter<SeriesSamples>,
}

impl SeriesSet for Selected {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        Ok(self.samples.next())
    }
}

fn main() -> std::io::Result<()> {
    let source = Memory::new();
    let engine = Engine::new(EngineOptions::default());
    let (start, end) = (Timestamp(3_600_000), Timestamp(7_200_000));
    let mut out = std::io::stdout().lock();
    for query in [
        "requests_total{code='200'}",
        "sum(requests_total)",
        "sum by (job) (rate(requests_total[5m]))",
        "sum by (job, code) (increase(requests_total[1h]))",
        "max_over_time(requests_total{code='200'}[1h])",
        "requests_total / on (instance) group_left () requests_total{code='200'}",
        "topk(10, rate(requests_total[5m]))",
        "quantile_over_time(0.9, requests_total{code='200'}[10m])",
    ] {
        let prepared = engine
            .range(query, start, end, Duration::from_secs(15))
            .map_err(|e| std::io::Error::other(format!("{query}: {e}")))?;
        let mut best = Duration::MAX;
        let mut samples = 0;
        for _ in 0..RUNS {
            let began = Instant::now();
            let answer = prepared
                .run(&source, &Control::default())
                .map_err(|e| std::io::Error::other(format!("{query}: {e}")))?;
            best = best.min(began.elapsed());
            samples = answer.stats.samples_read;
        }
        writeln!(out, "{:8.1} ms  {samples:9} samples  {query}", best.as_secs_f64() * 1e3)?;
    }
    Ok(())
}
