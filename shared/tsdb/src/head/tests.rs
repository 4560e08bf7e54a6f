use std::collections::BTreeMap;

use model::{IntegerHistogram, STALE_NAN_BITS, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::series::SeriesSamples;

fn tenant() -> Tenant {
    Tenant::default()
}

fn labels(number: usize) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("n", format!("{number:03}"))])
}

/// A head with one group of so many members.
fn head_with(members: usize) -> (Head, u32, u32, Arc<Vec<u32>>) {
    let mut head = Head::new(4);
    head.next_generation();
    let number = head.tenant_number(&tenant());
    let tenant = head.tenant_mut(number);
    let track = tenant.add_track();
    let members = (0..members).map(|n| tenant.series_or_insert(&labels(n), &Arc::default())).collect();
    (head, number, track, Arc::new(members))
}

fn group(tenant: u32, track: u32, members: &Arc<Vec<u32>>, t: i64, values: Vec<f64>) -> GroupSamples {
    GroupSamples {
        tenant,
        track,
        timestamp: t,
        members: Arc::clone(members),
        presence: Presence::All,
        values,
        histograms: Vec::new(),
        starts: Vec::new(),
        exemplars: Vec::new(),
    }
}

fn read_all(head: &Head, wanted: &Wanted) -> Vec<Option<SeriesRow>> {
    let tenant = &head.tenants()[0];
    let mut reader = SeriesReader::default();
    (0..).take(tenant.series_numbers()).map(|n| tenant.read(n, &mut reader, wanted)).collect()
}

fn everything() -> Wanted {
    Wanted::times(i64::MIN, i64::MAX)
}

#[test]
fn series_of_one_group_share_their_times() {
    let (mut head, tenant, track, members) = head_with(3);
    for t in 0..500 {
        head.apply(&group(tenant, track, &members, t * 10, vec![1.0, f64::from(t as i32), 0.5]));
    }
    let rows = read_all(&head, &Wanted::times(100, 4000));
    let rows: Vec<SeriesRow> = rows.into_iter().flatten().collect();
    assert_eq!(rows.len(), 3);
    let times: Vec<i64> = (10..=400).map(|t| t * 10).collect();
    assert_eq!(*rows[0].samples.floats.timestamps, times);
    for row in &rows {
        assert!(Arc::ptr_eq(&row.samples.floats.timestamps, &rows[0].samples.floats.timestamps));
    }
    assert_eq!(*rows[1].samples.floats.values, (10..=400).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn absent_members_leave_gaps_and_equal_gaps_share_times() {
    let (mut head, tenant, track, members) = head_with(3);
    for t in 0..10 {
        let mut samples = group(tenant, track, &members, t, vec![1.0; 3]);
        if t == 4 {
            samples.presence = Presence::Absent(vec![0b110]);
            samples.values = vec![1.0];
        }
        head.apply(&samples);
    }
    let rows: Vec<SeriesRow> = read_all(&head, &everything()).into_iter().flatten().collect();
    assert_eq!(rows[0].samples.sample_count(), 10);
    assert_eq!(*rows[1].samples.floats.timestamps, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert!(Arc::ptr_eq(&rows[1].samples.floats.timestamps, &rows[2].samples.floats.timestamps));
}

#[test]
fn generations_split_what_a_flush_takes() {
    let (mut head, tenant, track, members) = head_with(1);
    head.apply(&group(tenant, track, &members, 1, vec![1.0]));
    head.apply(&group(tenant, track, &members, 3, vec![3.0]));
    let second = head.next_generation();
    head.apply(&group(tenant, track, &members, 4, vec![4.0]));
    head.apply(&group(tenant, track, &members, 2, vec![2.0]));
    let times = |wanted: Wanted| {
        let row = read_all(&head, &wanted).remove(0);
        row.map(|r| r.samples.floats.timestamps.to_vec()).unwrap_or_default()
    };
    assert_eq!(times(Wanted::generations(1, 1)), [1, 3]);
    assert_eq!(times(Wanted::generations(second, second)), [2, 4], "the late one belongs to when it came");
    assert_eq!(times(everything()), [1, 2, 3, 4]);
    assert_eq!(times(Wanted::generations(3, 9)), Vec::<i64>::new());
}

#[test]
fn only_flushed_samples_are_dropped() {
    let (mut head, tenant, track, members) = head_with(1);
    for t in 0..4 {
        head.apply(&group(tenant, track, &members, t, vec![0.0]));
    }
    let second = head.next_generation();
    head.apply(&group(tenant, track, &members, 10, vec![0.0]));
    let count = |head: &Head| read_all(head, &everything()).remove(0).map_or(0, |r| r.samples.sample_count());
    head.drop_before(100, 0, 0..10);
    assert_eq!(count(&head), 5, "nothing was flushed");
    head.flushed(1, 1);
    head.drop_before(3, 0, 0..10);
    assert_eq!(count(&head), 5, "a run goes as a whole, and its last sample is at 3");
    head.drop_before(4, 0, 0..10);
    assert_eq!(count(&head), 1);
    head.flushed(second, second);
    head.drop_before(100, 0, 0..10);
    assert_eq!(count(&head), 0);
    assert!(head.tenants()[0].series(0).expect("still a series").is_empty());
    assert!(head.tenants()[0].matching(&[], i64::MIN, i64::MAX).is_empty());
    head.remove_series(tenant, 0);
    head.remove_track(tenant, track);
    assert_eq!(head.series_count(), 0);
}

#[test]
fn exemplars_are_bounded_and_repeats_are_ignored() {
    let (mut head, tenant, track, members) = head_with(1);
    let exemplar =
        |t: i64, value: f64| Exemplar { labels: Labels::empty(), value, timestamp: Some(Timestamp(t)) };
    for t in 0..6 {
        let mut samples = group(tenant, track, &members, t, vec![0.0]);
        samples.exemplars = vec![(0, exemplar(t, 1.5)), (0, exemplar(t, 1.5))];
        head.apply(&samples);
    }
    let row = read_all(&head, &everything()).remove(0).expect("a row");
    let times: Vec<i64> = row.samples.exemplars.iter().filter_map(|e| e.timestamp).map(|t| t.0).collect();
    assert_eq!(times, [2, 3, 4, 5], "the limit of this head is four");
}

#[test]
fn start_times_stay_with_their_samples() {
    let (mut head, tenant, track, members) = head_with(1);
    for (t, start) in [(1, Some(0)), (2, Some(0)), (3, None), (5, Some(0)), (6, Some(4)), (4, Some(1))] {
        let mut samples = group(tenant, track, &members, t, vec![0.0]);
        samples.starts = start.map(|s| (0, s)).into_iter().collect();
        head.apply(&samples);
    }
    let row = read_all(&head, &everything()).remove(0).expect("a row");
    assert_eq!(*row.samples.start_timestamps, [(1, 0), (2, 0), (4, 1), (5, 0), (6, 4)]);
}

#[test]
fn a_loaded_tail_reads_as_it_was_and_continues() {
    let (mut source, tenant_number, track, members) = head_with(2);
    for t in 0..600 {
        let mut samples = group(tenant_number, track, &members, t, vec![f64::from(t as i32), 1.0]);
        samples.starts = vec![(1, -5)];
        source.apply(&samples);
    }
    let rows: Vec<SeriesRow> = read_all(&source, &everything()).into_iter().flatten().collect();
    let mut head = Head::new(4);
    head.load(&tenant(), rows.clone());
    let again: Vec<SeriesRow> = read_all(&head, &everything()).into_iter().flatten().collect();
    for (a, b) in again.iter().zip(&rows) {
        assert_eq!(a.labels, b.labels);
        assert!(a.samples.bit_eq(&b.samples));
    }
    assert!(Arc::ptr_eq(&again[0].samples.floats.timestamps, &again[1].samples.floats.timestamps));
    assert_eq!(head.tenants()[0].max_time, 599);
}

/// What a sample is, for comparing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Float(u64),
    Histogram(u64),
}

fn histogram(count: u64) -> Arc<Histogram> {
    Arc::new(Histogram::Integer(IntegerHistogram { zero_count: count, count, ..IntegerHistogram::default() }))
}

fn samples_of(samples: &SeriesSamples) -> BTreeMap<i64, Kind> {
    let floats = samples.floats.iter().map(|(t, v)| (t, Kind::Float(v.to_bits())));
    let histograms = samples.histograms.iter().map(|(t, h)| match &**h {
        Histogram::Integer(h) => (t, Kind::Histogram(h.count)),
        Histogram::Float(_) => panic!("none was stored"),
    });
    let all: Vec<_> = floats.chain(histograms).collect();
    let count = all.len();
    let all: BTreeMap<i64, Kind> = all.into_iter().collect();
    assert_eq!(all.len(), count, "a time stands once");
    all
}

/// Which of two samples at one time is shown: real before stale, histogram before float, then the greater bits.
fn better(a: Kind, b: Kind) -> Kind {
    let rank = |k: Kind| match k {
        Kind::Float(bits) => (bits != STALE_NAN_BITS, false, bits),
        Kind::Histogram(count) => (true, true, count),
    };
    if rank(a) >= rank(b) { a } else { b }
}

proptest! {
    /// Two groups that share a series, members that come and go, late and repeated times, flushes in between.
    #[test]
    fn reading_agrees_with_a_map(
        steps in prop::collection::vec((0_usize..2, -3_i64..12, 0_u8..16, 0_u8..40, 0_u64..4), 1..120),
        range in (-20_i64..300, 0_i64..300),
    ) {
        let (mut head, tenant, first_track, members) = head_with(4);
        let second_track = head.tenant_mut(tenant).add_track();
        let groups = [(first_track, Arc::clone(&members)), (second_track, Arc::new(vec![members[0], members[2]]))];
        let mut model: Vec<BTreeMap<i64, Kind>> = vec![BTreeMap::new(); 4];
        let mut now = 0;
        for (which, step, absent, action, value) in steps {
            now += step;
            let (track, members) = &groups[which];
            let mut samples = group(tenant, *track, members, now, Vec::new());
            samples.presence = Presence::Absent(vec![absent]);
            for (i, series) in members.iter().enumerate().filter(|(i, _)| absent >> i & 1 == 0) {
                let kind = match action {
                    0 => Kind::Histogram(value),
                    1 => Kind::Float(STALE_NAN_BITS),
                    2..10 => Kind::Float((value as f64 / 3.0).to_bits()),
                    _ => Kind::Float((value as f64).to_bits()),
                };
                match kind {
                    Kind::Histogram(count) => samples.histograms.push((i as u32, histogram(count))),
                    Kind::Float(bits) => samples.values.push(f64::from_bits(bits)),
                }
                model[*series as usize].entry(now).and_modify(|k| *k = better(*k, kind)).or_insert(kind);
            }
            head.apply(&samples);
            if action == 39 {
                head.next_generation();
            }
        }
        let (min, max) = (range.0, range.0 + range.1);
        for (row, model) in read_all(&head, &Wanted::times(min, max)).iter().zip(&model) {
            let found = row.as_ref().map(|r| samples_of(&r.samples)).unwrap_or_default();
            let wanted: BTreeMap<i64, Kind> = model.range(min..=max).map(|(t, k)| (*t, *k)).collect();
            prop_assert_eq!(found, wanted);
        }
        // All generations together hold every sample, each in exactly one of them.
        let mut union: Vec<BTreeMap<i64, Kind>> = vec![BTreeMap::new(); 4];
        for generation in 1..=head.generation() {
            let rows = read_all(&head, &Wanted::generations(generation, generation));
            for (row, union) in rows.iter().zip(&mut union) {
                for (t, kind) in row.as_ref().map(|r| samples_of(&r.samples)).unwrap_or_default() {
                    union.entry(t).and_modify(|k| *k = better(*k, kind)).or_insert(kind);
                }
            }
        }
        prop_assert_eq!(union, model);
    }
}
