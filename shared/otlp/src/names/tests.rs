//! Expected names are worked out by hand from the OpenTelemetry specification's page on compatibility with Prometheus
//! (v1.38: "Metric metadata", "Metric attributes") and from the rules of Prometheus's own translation.

use super::*;
use crate::settings::TranslationStrategy;

fn settings(strategy: TranslationStrategy) -> Settings {
    Settings { strategy, ..Settings::default() }
}

#[test]
fn classic_names_get_unit_and_type() {
    for (name, unit, kind, expected) in [
        ("http.server.duration", "s", Kind::Other, "http_server_duration_seconds"),
        ("http.server.duration.seconds", "s", Kind::Other, "http_server_duration_seconds"),
        ("requests", "", Kind::MonotonicSum, "requests_total"),
        ("requests_total", "", Kind::MonotonicSum, "requests_total"),
        ("total.requests", "", Kind::MonotonicSum, "requests_total"),
        ("items", "1", Kind::MonotonicSum, "items_total"),
        ("cpu.usage", "1", Kind::Gauge, "cpu_usage_ratio"),
        ("ratio.of.hits", "1", Kind::Gauge, "of_hits_ratio"),
        ("queue.length", "1", Kind::Other, "queue_length"),
        ("system.network.io", "By", Kind::MonotonicSum, "system_network_io_bytes_total"),
        ("throughput", "By/s", Kind::Gauge, "throughput_bytes_per_second"),
        ("throughput", " By / s ", Kind::Gauge, "throughput_bytes_per_second"),
        ("rate", "1/m", Kind::Gauge, "rate_per_minute"),
        ("rate", "1/fortnight", Kind::Gauge, "rate_per_fortnight"),
        ("rate", "/", Kind::Gauge, "rate"),
        ("rate", "By/", Kind::Gauge, "rate_bytes"),
        ("rate", "By/@", Kind::Gauge, "rate_bytes"),
        ("connections", "{connection}", Kind::Other, "connections"),
        ("io", "By/{request}", Kind::Other, "io_bytes"),
        ("load", "%", Kind::Gauge, "load_percent"),
        ("temperature", "Cel", Kind::Gauge, "temperature_celsius"),
        ("temperature", "°F", Kind::Gauge, "temperature_F"),
        ("disk", "TiBy", Kind::Gauge, "disk_tibibytes"),
        ("odd", "a@b#c/d", Kind::Gauge, "odd_a_b_c_per_day"),
        ("many__under___scores", "", Kind::Gauge, "many_under_scores"),
        ("_leading.and.trailing_", "", Kind::Gauge, "leading_and_trailing"),
        ("4xx", "", Kind::Gauge, "_4xx"),
        ("job:rate:sum", "", Kind::Gauge, "job:rate:sum"),
        ("température", "", Kind::Gauge, "temp_rature"),
        ("total", "", Kind::MonotonicSum, "total"),
    ] {
        let settings = settings(TranslationStrategy::UnderscoreEscapingWithSuffixes);
        assert_eq!(metric_name(name, unit, kind, &settings).as_deref(), Ok(expected), "{name} {unit}");
    }
}

#[test]
fn the_other_strategies_leave_out_suffixes_escaping_or_both() {
    use TranslationStrategy::{NoTranslation, NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes};
    for (strategy, name, unit, kind, expected) in [
        (UnderscoreEscapingWithoutSuffixes, "http.requests", "s", Kind::MonotonicSum, "http_requests"),
        (UnderscoreEscapingWithoutSuffixes, "a@@##b__c", "", Kind::Gauge, "a_b__c"),
        (UnderscoreEscapingWithoutSuffixes, "123", "", Kind::Gauge, "_123"),
        (NoUtf8EscapingWithSuffixes, "http.requests", "s", Kind::MonotonicSum, "http.requests_seconds_total"),
        (NoUtf8EscapingWithSuffixes, "http.requests.total", "", Kind::MonotonicSum, "http.requests_total"),
        (NoUtf8EscapingWithSuffixes, "cpu_seconds_total", "s", Kind::MonotonicSum, "cpu_seconds_total"),
        (NoUtf8EscapingWithSuffixes, "hits.ratio", "1", Kind::Gauge, "hits_ratio"),
        (NoUtf8EscapingWithSuffixes, "io", "By/s", Kind::Gauge, "io_bytes_per_second"),
        (NoUtf8EscapingWithSuffixes, "io_per_second", "By/s", Kind::Gauge, "io_bytes_per_second"),
        (NoUtf8EscapingWithSuffixes, "total", "", Kind::MonotonicSum, "total_total"),
        (NoUtf8EscapingWithSuffixes, "étotal", "", Kind::MonotonicSum, "étotal_total"),
        (NoTranslation, "http.requests", "s", Kind::MonotonicSum, "http.requests"),
        (NoTranslation, "température", "Cel", Kind::Gauge, "température"),
        (NoTranslation, "__", "", Kind::Gauge, "__"),
    ] {
        let got = metric_name(name, unit, kind, &settings(strategy));
        assert_eq!(got.as_deref(), Ok(expected), "{strategy:?} {name} {unit}");
    }
}

#[test]
fn names_of_which_nothing_is_left_are_refused() {
    let escaping = settings(TranslationStrategy::UnderscoreEscapingWithoutSuffixes);
    for (name, error) in [
        ("", r#"normalization for metric "" resulted in empty name"#),
        ("@#$", r#"normalization for metric "@#$" resulted in empty name"#),
        ("_@_", r#"normalization for metric "_@_" resulted in invalid name "___""#),
    ] {
        assert_eq!(metric_name(name, "", Kind::Gauge, &escaping), Err(error.to_owned()));
    }
    let as_it_is = settings(TranslationStrategy::NoTranslation);
    assert!(metric_name("", "", Kind::Gauge, &as_it_is).is_err());
    for (name, error) in [
        ("", r#"normalization for label name "" resulted in empty name"#),
        ("é é", r#"normalization for label name "é é" resulted in invalid name "___""#),
    ] {
        assert_eq!(label_name(name, &escaping), Err(error.to_owned()));
    }
    assert!(label_name("", &as_it_is).is_err());
}

#[test]
fn units_are_words() {
    for (unit, expected) in [
        ("s", "seconds"),
        ("By/s", "bytes_per_second"),
        ("1", ""),
        ("1/s", "per_second"),
        ("{packet}", ""),
        ("_a b_", "a_b"),
        ("furlong", "furlong"),
    ] {
        assert_eq!(unit_name(unit), expected, "{unit}");
    }
}

#[test]
fn label_names_are_sanitised_as_the_settings_say() {
    let default = Settings::default();
    let bare = Settings { prefixes_underscores: false, ..Settings::default() };
    let collapsing = Settings { keeps_multiple_underscores: false, ..Settings::default() };
    let utf8 = settings(TranslationStrategy::NoTranslation);
    for (name, settings, expected) in [
        ("http.method", &default, "http_method"),
        ("a..b", &default, "a__b"),
        ("clé", &default, "cl_"),
        ("1st", &default, "key_1st"),
        ("_a", &default, "key_a"),
        (".a", &default, "key_a"),
        ("__a__", &default, "__a__"),
        ("__a", &default, "__a"),
        ("_a", &bare, "_a"),
        ("1st", &bare, "key_1st"),
        ("a..b__c", &collapsing, "a_b_c"),
        ("__a..b__", &collapsing, "__a_b__"),
        ("__a", &collapsing, "key_a"),
        ("http.method", &utf8, "http.method"),
        ("1st é", &utf8, "1st é"),
    ] {
        assert_eq!(label_name(name, settings).as_deref(), Ok(expected), "{name}");
    }
}
