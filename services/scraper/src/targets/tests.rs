use exposition::{EscapingScheme, ScrapeProtocol};
use http_client::{HttpSettings, Roots};
use relabel::NameValidation;

use super::*;
use crate::client::BodyBudget;
use crate::job::{HistogramRules, LabelLimits, SampleRules};

pub(crate) fn job(name: &str) -> Job {
    Job {
        name: name.into(),
        rules: SampleRules {
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            relabel: Vec::new(),
            names: NameValidation::Utf8,
            sample_limit: 0,
            label_limits: LabelLimits::default(),
            histograms: HistogramRules::default(),
        },
        protocols: ScrapeProtocol::DEFAULT.to_vec(),
        fallback: None,
        escaping: EscapingScheme::AllowUtf8,
        is_compressed: true,
        body_size_limit: 0,
        has_extra_metrics: false,
        http: HttpSettings::default(),
        refusal: None,
        ignored: Vec::new(),
    }
}

pub(crate) fn target(id: &str, epoch: u64) -> Target {
    Target {
        id: id.into(),
        job: "j".into(),
        labels: Labels::from_pairs([("instance", id), ("job", "j")]),
        discovered_labels: Labels::from_pairs([("__address__", id)]),
        url: format!("http://{id}/metrics"),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        epoch,
        error: String::new(),
        labels_hash: 1,
    }
}

pub(crate) fn shared() -> Shared {
    Shared { budget: BodyBudget::new(64 << 20), roots: Roots::default(), body_bytes_max: 16 << 20 }
}

type Started = Arc<Mutex<Vec<(watch::Receiver<Order>, Arc<Shown>)>>>;

fn targets() -> (Targets, Registry, Started) {
    let (started, registry) = (Started::default(), Registry::default());
    let kept = started.clone();
    let start: Start = Box::new(move |orders, shown| kept.lock().push((orders, shown)));
    let metrics = Metrics::register(&service_runtime::Metrics::default());
    (Targets::new(start, shared(), metrics, registry.clone(), "host".into()), registry, started)
}

/// What each loop was told last, as `id epoch` or the way it ends.
fn orders(started: &Started) -> Vec<String> {
    let of = |(orders, _): &(watch::Receiver<Order>, Arc<Shown>)| match &*orders.borrow() {
        Order::Scrape(assignment) => format!("{} {}", assignment.target.id, assignment.target.epoch),
        Order::Stop(reason) => format!("{reason:?}"),
    };
    started.lock().iter().map(of).collect()
}

fn snapshot(ids: &[&str]) -> Update {
    let targets = ids.iter().map(|id| target(id, 1)).collect();
    Update { revision: 1, is_snapshot: true, jobs: vec![job("j")], targets, ..Update::default() }
}

fn removal(id: &str, reason: Removal, epoch: u64) -> Update {
    Update { removed: vec![(id.into(), reason, epoch)], ..Update::default() }
}

#[test]
fn deltas_start_change_and_stop_loops() {
    let (mut targets, registry, started) = targets();
    targets.apply(snapshot(&["a", "b", "c"]));
    assert_eq!(orders(&started), ["a 1", "b 1", "c 1"]);
    targets.apply(Update { targets: vec![target("b", 2)], ..Update::default() });
    targets.apply(removal("a", Removal::Gone, 1));
    targets.apply(removal("b", Removal::Moved, 1));
    assert_eq!(orders(&started), ["Gone", "b 2", "c 1"], "the removal of an older epoch is ignored");
    targets.apply(removal("b", Removal::Moved, 2));
    assert_eq!(orders(&started), ["Gone", "Moved", "c 1"]);
    assert_eq!(registry.all().len(), 1);
    let unknown = Target { job: "other".into(), ..target("x", 1) };
    targets.apply(Update { targets: vec![unknown], ..Update::default() });
    assert_eq!(started.lock().len(), 3, "a target of an unknown job is left out");
}

#[test]
fn a_target_that_comes_back_has_its_loop_until_that_has_ended() {
    let (mut targets, registry, started) = targets();
    targets.apply(snapshot(&["a"]));
    targets.apply(removal("a", Removal::Gone, 1));
    targets.apply(Update { targets: vec![target("a", 3)], ..Update::default() });
    assert_eq!(orders(&started), ["a 3"], "its markers are not written yet");
    targets.apply(removal("a", Removal::Gone, 3));
    started.lock()[0].1.status.lock().has_ended = true;
    targets.apply(Update { targets: vec![target("a", 4)], ..Update::default() });
    assert_eq!(orders(&started), ["Gone", "a 4"]);
    assert!(started.lock()[0].0.has_changed().is_err(), "the old loop is let go");
    assert_eq!(registry.all().len(), 1);
    targets.apply(removal("a", Removal::Moved, 4));
    started.lock()[1].1.status.lock().has_ended = true;
    targets.reap();
    assert!(started.lock()[1].0.has_changed().is_err());
}

#[test]
fn what_a_snapshot_leaves_out_ends_without_markers() {
    let (mut targets, _, started) = targets();
    targets.apply(snapshot(&["a", "b"]));
    targets.apply(snapshot(&["b"]));
    assert_eq!(orders(&started), ["Moved", "b 1"]);
}

#[test]
fn loops_hear_of_a_job_that_changed_and_of_no_other() {
    let (mut targets, _, started) = targets();
    targets.apply(snapshot(&["a"]));
    started.lock()[0].0.mark_unchanged();
    targets.apply(Update { jobs: vec![job("j"), job("k")], ..Update::default() });
    targets.apply(snapshot(&["a"]));
    assert!(!started.lock()[0].0.has_changed().unwrap());
    let changed = Job { has_extra_metrics: true, ..job("j") };
    targets.apply(Update { jobs: vec![changed], ..Update::default() });
    let Order::Scrape(assignment) = started.lock()[0].0.borrow_and_update().clone() else {
        panic!("stopped")
    };
    assert!(assignment.job.job.has_extra_metrics);
    let external_labels = Some(Labels::from_pairs([("site", "x")]));
    targets.apply(Update { external_labels, ..Update::default() });
    let Order::Scrape(moved) = started.lock()[0].0.borrow_and_update().clone() else { panic!("stopped") };
    assert_ne!(moved.offset_seed, assignment.offset_seed, "external labels take part in the offset");
    targets.apply(Update { removed_jobs: vec!["j".into()], ..Update::default() });
    targets.apply(Update { targets: vec![target("b", 1)], ..Update::default() });
    assert_eq!(started.lock().len(), 1, "the job is gone");
}
