use std::sync::Arc;

use config_watch::WatchConfigResponse;
use group_writer::Refusal;
use model::Metadata;
use rpc::pb::discovery as pb;

use super::*;

fn sample(name: &str, t: i64, point: Option<u32>) -> Sample {
    Sample {
        labels: Labels::from_pairs([("__name__", name)]),
        metadata: Arc::<Metadata>::default(),
        timestamp: Timestamp(t),
        value: Value::Float(1.0),
        start: None,
        exemplars: Vec::new(),
        point,
    }
}

fn translation(resources: Vec<(&str, Vec<Sample>)>) -> Translation {
    let resource = |(key, samples)| Resource { key: Labels::from_pairs([("service.name", key)]), samples };
    let resources: Vec<Resource> = resources.into_iter().map(resource).collect();
    let points: HashSet<u32> =
        resources.iter().flat_map(|r| &r.samples).filter_map(|sample| sample.point).collect();
    Translation { points: points.len() as u64, resources, ..Translation::default() }
}

fn refusal(reason: RefusalReason, samples: &[(&str, i64)]) -> Refusal {
    let sample = |(name, t): &(&str, i64)| (Labels::from_pairs([("__name__", *name)]), Timestamp(*t));
    let samples: Vec<_> = samples.iter().map(sample).collect();
    Refusal { reason, count: samples.len() as u64, histograms: 0, example: format!("{reason:?}"), samples }
}

#[test]
fn refused_samples_are_counted_as_the_points_they_come_from() {
    let mut given = translation(vec![(
        "s",
        vec![
            sample("h_sum", 1, Some(0)),
            sample("h_count", 1, Some(0)),
            sample("g", 1, Some(1)),
            sample("twice", 1, Some(2)),
            sample("twice", 1, Some(3)),
            sample("target_info", 1, None),
        ],
    )]);
    let written = [
        Written {
            stored: 1,
            refusals: vec![refusal(RefusalReason::TooOld, &[("h_sum", 1), ("h_count", 1)])],
        },
        Written {
            stored: 1,
            refusals: vec![
                refusal(RefusalReason::Duplicate, &[("twice", 1)]),
                refusal(RefusalReason::OutOfOrder, &[("target_info", 1)]),
            ],
        },
    ];
    reject_refused(&mut given, &written);
    assert_eq!(given.rejected.iter().collect::<Vec<_>>(), [(Reason::Duplicate, 1), (Reason::TooOld, 1)]);
    assert_eq!(given.points, 4);
}

#[test]
fn a_resource_is_a_group_and_a_point_without_room_is_rejected_whole() {
    let mut index = SeriesIndex::new(Tenant::default(), 3);
    let mut given = translation(vec![
        ("a", vec![sample("x", 1, Some(0)), sample("y", 2, Some(1))]),
        ("b", vec![sample("h_sum", 1, Some(2)), sample("h_count", 1, Some(2)), sample("z", 1, Some(3))]),
    ]);
    let batches = batches(&mut index, &mut given, Timestamp(10));
    let said: Vec<_> = batches[0]
        .appends
        .iter()
        .map(|a| (a.group.identity().key.to_string(), a.timestamp.millis(), a.values.len()))
        .collect();
    let a = r#"{"service.name"="a"}"#.to_owned();
    assert_eq!(said, [(a.clone(), 1, 1), (a, 2, 1)], "h_sum had room and is not stored without h_count");
    assert_eq!(given.rejected.iter().collect::<Vec<_>>(), [(Reason::Limit, 2)]);
    assert!(given.rejected.message().contains("too many active series for tenant default: the limit is 3"));
}

#[test]
fn a_large_request_becomes_several_batches() {
    let samples = (0..25_000_u32).map(|i| sample(&format!("m{i}"), 1, Some(i))).collect();
    let mut index = SeriesIndex::new(Tenant::default(), 100_000);
    let batches = batches(&mut index, &mut translation(vec![("a", samples)]), Timestamp(0));
    let sizes: Vec<usize> = batches.iter().map(|b| b.appends.iter().map(|a| a.values.len()).sum()).collect();
    assert_eq!(sizes, [20_000, 5_000]);
}

#[test]
fn the_configuration_says_how_to_translate() {
    let lookback = Duration::from_secs(60);
    let defaults = Settings { lookback_delta: lookback, ..Settings::default() };
    assert_eq!(settings(&WatchConfigResponse::default(), lookback), defaults);
    let otlp = pb::Otlp {
        translation_strategy: "NoTranslation".to_owned(),
        promotes_all_resource_attributes: true,
        ignored_resource_attributes: vec!["a".to_owned()],
        keep_identifying_resource_attributes: true,
        convert_histograms_to_nhcb: true,
        promote_scope_metadata: true,
        ..pb::Otlp::default()
    };
    let expected = Settings {
        strategy: otlp::TranslationStrategy::NoTranslation,
        promotion: Promotion::AllBut(["a".to_owned()].into()),
        keeps_identifying_attributes: true,
        converts_to_custom_buckets: true,
        promotes_scope: true,
        prefixes_underscores: false,
        keeps_multiple_underscores: false,
        ..defaults
    };
    assert_eq!(settings(&WatchConfigResponse { otlp: Some(otlp), ..Default::default() }, lookback), expected);
    let only = pb::Otlp { promoted_resource_attributes: vec!["b".to_owned()], ..pb::Otlp::default() };
    let got = settings(&WatchConfigResponse { otlp: Some(only), ..Default::default() }, lookback);
    assert_eq!(got.promotion, Promotion::Only(["b".to_owned()].into()));
}
