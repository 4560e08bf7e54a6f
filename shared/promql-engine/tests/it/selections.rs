//! What a query says beforehand that it selects.

use model::Timestamp;
use promql_engine::{Control, Engine, Selection, SeriesSet, SeriesSource, SourceError};
use std::sync::Mutex;

use super::source::{Memory, options};

/// The selections of a query at 10,000 s, as its metric and the seconds before that at which the time begins and ends.
fn selections(query: &str) -> Vec<(String, f64, f64)> {
    let at = Timestamp(10_000_000);
    let query = Engine::new(options()).instant(query, at).unwrap_or_else(|e| panic!("{query}: {e}"));
    let selections = query.selections();
    // What it opens when it runs, where nothing is found.
    let asked = Asked::default();
    drop(query.run(&asked, &Control::default()));
    assert_eq!(asked.0.into_inner().expect("no panic"), selections);
    let seconds = |time: Timestamp| at.since_ms(time) as f64 / 1_000.0;
    selections
        .iter()
        .map(|s| (s.matchers[0].value().to_owned(), seconds(s.min_time), seconds(s.max_time)))
        .collect()
}

#[derive(Default)]
struct Asked(Mutex<Vec<Selection>>);

impl SeriesSource for Asked {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        self.0.lock().expect("no panic").push(selection.clone());
        Memory::default().select(selection)
    }
}

#[test]
fn selections_are_known_beforehand() {
    let one = |name: &str, from, to| (name.to_owned(), from, to);
    // The left end is open, by a millisecond.
    assert_eq!(selections("a"), [one("a", 299.999, 0.0)]);
    assert_eq!(
        selections("sum(rate(a[1m])) / on() group_left b offset 10s > scalar(c)"),
        [one("a", 59.999, 0.0), one("b", 309.999, 10.0), one("c", 299.999, 0.0)]
    );
    assert_eq!(selections("max_over_time(rate(a[1m])[5m:1m])"), [one("a", 339.999, 40.0)]);
    assert_eq!(selections("a @ 9000 or a @ end()"), [one("a", 1299.999, 1000.0), one("a", 299.999, 0.0)]);
    assert_eq!(selections("a[1m]"), [one("a", 59.999, 0.0)]);
    assert_eq!(selections("time() + scalar(a)"), [one("a", 299.999, 0.0)]);
    for none in ["1", "vector(1)", "\"text\""] {
        assert_eq!(selections(none), [], "{none}");
    }
}
