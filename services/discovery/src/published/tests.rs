use super::*;
use crate::assignment::assign;
use crate::prometheus_config::{Variables, check_text};
use crate::targets::build_pool;

/// A state with one scraper, whose jobs have the static targets of the file.
fn state(revision: u64, yaml: &str, members: &[&str], before: Option<&Published>) -> Published {
    let config = check_text("p.yml", yaml, &Variables::new()).expect("loads");
    let pools: BTreeMap<String, Arc<Pool>> = config
        .jobs
        .iter()
        .map(|job| (job.name.clone(), Arc::new(build_pool(job, &job.static_groups))))
        .collect();
    let members: Vec<Member> =
        (0..).zip(members).map(|(number, name)| Member::new(number, *name, "")).collect();
    let ids = pools.values().flat_map(|pool| pool.targets.iter().map(|target| target.id));
    let none = Assignments::new();
    let assignments = assign(ids, &members, before.map_or(&none, |b| &b.assignments), Epoch(revision));
    let loaded = Arc::new(Loaded { revision, config, rule_files: Arc::from([]), at: Timestamp(0) });
    Published::new(revision, loaded, true, pools, members.into(), assignments, Assignments::new())
}

fn urls(delta: &Delta) -> Vec<&str> {
    let mut urls: Vec<&str> = delta.targets.iter().map(|assigned| assigned.target.url.as_str()).collect();
    urls.sort_unstable();
    urls
}

const TWO: &str = "global: {external_labels: {zone: eu}}\nscrape_configs: [{job_name: a, static_configs: [{targets: [x, y]}]}, {job_name: b}]\n";

#[test]
fn a_snapshot_has_everything_and_no_news_is_nothing() {
    let now = state(1, TWO, &["s"], None);
    let first = delta("s", None, &now);
    assert!(first.is_snapshot && first.removed.is_empty());
    assert_eq!(urls(&first), ["http://x/metrics", "http://y/metrics"]);
    assert_eq!(first.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(first.external_labels.as_ref().map(|l| l.to_string()).as_deref(), Some(r#"{zone="eu"}"#));
    assert!(delta("s", Some(&now), &state(2, TWO, &["s"], Some(&now))).is_empty());
    let stranger = delta("t", None, &now);
    assert!(stranger.is_snapshot && stranger.targets.is_empty());
}

#[test]
fn targets_and_jobs_come_change_and_go() {
    let before = state(1, TWO, &["s"], None);
    let yaml = "scrape_configs: [{job_name: a, scrape_timeout: 3s, static_configs: [{targets: [y, z]}]}]\n";
    let now = state(2, yaml, &["s"], Some(&before));
    let change = delta("s", Some(&before), &now);
    assert!(!change.is_snapshot);
    assert_eq!(change.removed_jobs, ["b"]);
    assert_eq!(change.jobs.len(), 1);
    assert_eq!(change.external_labels, Some(Labels::empty()));
    assert_eq!(urls(&change), ["http://y/metrics", "http://z/metrics"], "y has another timeout");
    let epochs: BTreeMap<&str, u64> =
        change.targets.iter().map(|assigned| (assigned.target.url.as_str(), assigned.epoch.0)).collect();
    assert_eq!(epochs, BTreeMap::from([("http://y/metrics", 1), ("http://z/metrics", 2)]));
    let [removed] = change.removed.as_slice() else { panic!("one removed: {:?}", change.removed) };
    assert_eq!((removed.reason, removed.epoch), (RemovalReason::Gone, Epoch(1)));
}

#[test]
fn what_goes_on_elsewhere_is_moved_and_not_gone() {
    let before = state(1, TWO, &["s"], None);
    let share = before.share("s").expect("a share").len();
    // Another path is another URL, so another identity, for the same series.
    let yaml = TWO.replace("job_name: a,", "job_name: a, metrics_path: /m,");
    let renamed = delta("s", Some(&before), &state(2, &yaml, &["s"], Some(&before)));
    assert_eq!(
        renamed.removed.iter().map(|r| r.reason).collect::<Vec<_>>(),
        vec![RemovalReason::Moved; share]
    );
    // The scraper left the list and another one took its place.
    let now = state(3, TWO, &["t"], Some(&before));
    let (old, new) = (delta("s", Some(&before), &now), delta("t", Some(&before), &now));
    assert_eq!(old.removed.iter().map(|r| r.reason).collect::<Vec<_>>(), vec![RemovalReason::Moved; share]);
    assert_eq!(new.targets.iter().map(|assigned| assigned.epoch).collect::<Vec<_>>(), vec![Epoch(3); share]);
}
