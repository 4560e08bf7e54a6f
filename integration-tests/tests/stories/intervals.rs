//! Federation at another interval than the source's: what a pull sees is the newest sample, and no more.

use integration_tests::{Http, Kind, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::pair;

/// Between two samples of the source.
const INTERVAL_MS: i64 = 1_000;
/// Samples of the source for each that is pulled.
const PER_PULL: i64 = 5;
const PULLS: i64 = 4;
const ALL: i64 = PER_PULL * PULLS;

/// A counter that is reset between two pulls each time, yet stands higher at each of them.
fn counter(number: i64) -> f64 {
    let (pull, within) = (number / PER_PULL, number % PER_PULL);
    let climbed = if within < 2 { 1_000 + within } else { 10 * within };
    (100 * pull + climbed) as f64
}

/// What was counted since the sample before: a delta, which nobody may miss.
fn delta(number: i64) -> f64 {
    (1_i64 << number) as f64
}

fn at(base: i64, number: i64) -> i64 {
    base + number * INTERVAL_MS
}

/// Writes some of the source's samples.
fn send(source: &Server, base: i64, numbers: std::ops::Range<i64>) {
    let series = |name, value: fn(i64) -> f64| SeriesOut {
        labels: Labels::from_pairs([("__name__", name), ("instance", "i"), ("job", "app")]),
        floats: numbers.clone().map(|number| (Timestamp(at(base, number)), value(number))).collect(),
        ..SeriesOut::default()
    };
    let reply = write(&source.http(), &[series("app_total", counter), series("app_delta", delta)]);
    let reply = reply.expect("an answer");
    assert!(matches!(reply.status, 200 | 204), "{}", reply.body);
}

/// The samples of a metric.
fn samples(http: &Http, metric: &str, base: i64) -> Vec<(i64, f64)> {
    let answer = promql::instant(http, &format!("{metric}[5m]"), at(base, ALL));
    answer.series.into_iter().flat_map(|series| series.floats).collect()
}

/// Waits until the puller has asked the source some times more.
fn pull_again(puller: &Http) {
    let pulls =
        || promql::single(puller, "count_over_time(up{job=\"federate\"}[5m])", now_ms()).unwrap_or(0.0);
    let before = pulls();
    eventually("it is pulled again", || (pulls() >= before + 3.0).then_some(()));
}

#[test]
fn a_pull_takes_the_newest_sample_alone() {
    // Late samples are taken: all but the newest come behind it, so that no pull can see them.
    let config = "storage:\n  tsdb:\n    out_of_order_time_window: 10m\n";
    for kind in [Kind::Tributary, Kind::Prometheus] {
        let source = Server::start(kind, config);
        let more = "  honor_labels: true\n  params:\n    'match[]': ['{job=\"app\"}']\n";
        let config = pair::config("federate", &source.address(), "/federate", more);
        let pullers = [Kind::Tributary, Kind::Prometheus].map(|kind| Server::start(kind, &config));
        let base = pair::base_ms(60_000);
        for pull in 0..PULLS {
            let (first, newest) = (pull * PER_PULL, pull * PER_PULL + PER_PULL - 1);
            send(&source, base, newest..newest + 1);
            for puller in &pullers {
                eventually("the newest sample is pulled", || {
                    let last = samples(&puller.http(), "app_delta", base).pop();
                    last.filter(|last| *last == (at(base, newest), delta(newest)))
                });
            }
            send(&source, base, first..newest);
        }
        let of = |numbers: &[i64], value: fn(i64) -> f64| -> Vec<(i64, f64)> {
            numbers.iter().map(|number| (at(base, *number), value(*number))).collect()
        };
        let all: Vec<i64> = (0..ALL).collect();
        let pulled: Vec<i64> = (0..PULLS).map(|pull| pull * PER_PULL + PER_PULL - 1).collect();
        let value = |http: &Http, query: &str| promql::single(http, query, at(base, ALL));
        let sum = |numbers: &[i64]| numbers.iter().map(|number| delta(*number)).sum::<f64>();
        let http = source.http();
        assert_eq!(samples(&http, "app_total", base), of(&all, counter), "the source {kind:?} has all");
        assert_eq!(value(&http, "resets(app_total[5m])"), Some(PULLS as f64));
        assert_eq!(value(&http, "sum_over_time(app_delta[5m])"), Some(sum(&all)));

        for puller in &pullers {
            let http = puller.http();
            // The same sample again and again is one sample.
            pull_again(&http);
            let mix = format!("{:?} pulls from {kind:?}", puller.kind());
            assert_eq!(samples(&http, "app_total", base), of(&pulled, counter), "{mix}");
            assert_eq!(samples(&http, "app_delta", base), of(&pulled, delta), "{mix}");
            // A rate is over what was pulled: the resets in between are not seen.
            assert_eq!(value(&http, "resets(app_total[5m])"), Some(0.0), "{mix}");
            let slope = 100.0 / (PER_PULL * INTERVAL_MS) as f64 * 1_000.0;
            let rate = value(&http, "irate(app_total[5m])").expect("a rate");
            assert!(promql::is_same(rate, slope), "{mix}: {rate}, not {slope}");
            // What was counted in between is lost to the puller, and nothing makes up for it.
            assert_eq!(value(&http, "sum_over_time(app_delta[5m])"), Some(sum(&pulled)), "{mix}");
        }
    }
}
