use model::Labels;

use super::*;
use crate::prometheus_config::{Variables, check_text};
use crate::target_group::TargetGroup;
use crate::targets::build_pool;
use coordination::Epoch;

#[test]
fn large_deltas_are_cut_into_parts_of_which_the_last_is_complete() {
    let config = check_text("p.yml", "scrape_configs: [{job_name: j}]\n", &Variables::new()).expect("loads");
    let large = "v".repeat(1 << 20);
    let labels = [("large".to_owned(), large)];
    let group = TargetGroup::new("0", (0..10).map(|i| format!("h{i}")).collect(), labels);
    let pool = build_pool(&config.jobs[0], [&group]);
    let targets: Vec<Assigned> =
        pool.targets.iter().map(|target| Assigned { target: target.clone(), epoch: Epoch(7) }).collect();
    let external_labels = Some(Labels::from_pairs([("zone", "eu")]));
    let whole =
        Delta { is_snapshot: true, jobs: config.jobs.clone(), targets, external_labels, ..Delta::default() };
    let parts = parts(3, &whole);
    // Two label sets of 1 MiB a target, 8 MiB a part.
    assert_eq!(parts.iter().map(|part| part.targets.len()).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!(parts.iter().map(|part| part.is_partial).collect::<Vec<_>>(), [true, true, true, false]);
    assert!(
        parts
            .iter()
            .all(|part| part.revision == 3 && part.is_snapshot && part.encoded_len() < PART_BYTES_MAX)
    );
    assert_eq!(parts.iter().map(|part| part.jobs.len()).collect::<Vec<_>>(), [1, 0, 0, 0]);
    let small = super::parts(4, &Delta { removed_jobs: vec!["x".to_owned()], ..Delta::default() });
    assert_eq!(small.len(), 1);
    assert!(!small[0].is_partial && !small[0].is_snapshot);
}

#[test]
fn dropped_targets_beyond_a_message_are_counted_only() {
    let large = Labels::from_pairs([("large", "v".repeat(1 << 20))]);
    let pool = Pool { dropped: vec![large; 40], dropped_count: 50, ..Pool::default() };
    let (name, pool) = ("j".to_owned(), Arc::new(pool));
    let response = dropped([(&name, &pool)].into_iter(), "");
    // Little more than 1 MiB each, 32 MiB in all.
    assert_eq!((response.targets.len(), response.counts["j"]), (31, 50));
}
