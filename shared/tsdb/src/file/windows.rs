//! Cuts series into the windows and days that rows and files are made of.

use std::collections::BTreeMap;
use std::ops::Range;

use model::Histogram;

use crate::series::SeriesRow;
use crate::table::{Error, Result};

/// The length of a row's window in milliseconds as it is flushed: 2 h, cut at multiples in UTC.
pub const WINDOW_MS: i64 = 2 * 3_600_000;
/// The length of a row's window in milliseconds once its day is compacted: 8 h.
pub const DAY_WINDOW_MS: i64 = 8 * 3_600_000;
/// Milliseconds in a day.
pub(crate) const DAY_MS: i64 = 24 * 3_600_000;
/// The first instant a file can hold: 0001-01-01, since a Delta date has four digits.
pub(crate) const TIME_MIN: i64 = -62_135_596_800_000;
/// The last instant a file can hold: the end of 9999-12-31.
pub(crate) const TIME_MAX: i64 = 253_402_300_799_999;

/// What one series has in one window: ranges into its columns.
#[derive(Debug, Clone)]
pub(crate) struct Piece<'a> {
    /// The series.
    pub row: &'a SeriesRow,
    /// Its float samples in the window.
    pub floats: Range<usize>,
    /// Its histograms in the window.
    pub histograms: Range<usize>,
    /// Its start times in the window.
    pub starts: Range<usize>,
    /// Its exemplars in the window, by index.
    pub exemplars: Vec<usize>,
}

impl<'a> Piece<'a> {
    fn new(row: &'a SeriesRow) -> Self {
        Self { row, floats: 0..0, histograms: 0..0, starts: 0..0, exemplars: Vec::new() }
    }

    /// Times of the float samples.
    pub(crate) fn float_times(&self) -> &'a [i64] {
        &self.row.samples.floats.timestamps[self.floats.clone()]
    }

    /// How many numbers the row's lists hold, about.
    pub(crate) fn numbers(&self) -> usize {
        let histogram = |h: &Histogram| match h {
            Histogram::Integer(h) => {
                h.positive_deltas.len() + h.negative_deltas.len() + h.custom_values.len()
            }
            Histogram::Float(h) => {
                h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len()
            }
        };
        let histograms = &self.row.samples.histograms.values[self.histograms.clone()];
        let buckets: usize = histograms.iter().map(|h| 1 + histogram(h)).sum();
        self.floats.len() + buckets + self.starts.len() + self.exemplars.len()
    }

    /// The least and greatest time of anything in the piece.
    pub(crate) fn time_range(&self) -> (i64, i64) {
        let samples = &self.row.samples;
        let histograms = &samples.histograms.timestamps[self.histograms.clone()];
        let starts = &samples.start_timestamps[self.starts.clone()];
        let exemplars =
            self.exemplars.iter().filter_map(|i| samples.exemplars[*i].timestamp).map(|t| t.millis());
        let bounds = |times: &[i64]| [times.first().copied(), times.last().copied()];
        let times = bounds(self.float_times())
            .into_iter()
            .chain(bounds(histograms))
            .chain([starts.first().map(|s| s.0), starts.last().map(|s| s.0)])
            .flatten()
            .chain(exemplars);
        times.fold((i64::MAX, i64::MIN), |(min, max), t| (min.min(t), max.max(t)))
    }
}

/// Cuts rows at windows of a length that divides a day, and sorts the pieces into days, keeping the order (series,
/// window) within each day.
///
/// # Errors
/// When a row has a time before the year 1 or after 9999, or columns of unequal length.
pub(crate) fn pieces_by_day(rows: &[SeriesRow], window_ms: i64) -> Result<BTreeMap<i64, Vec<Piece<'_>>>> {
    let mut days: BTreeMap<i64, Vec<Piece<'_>>> = BTreeMap::new();
    for row in rows {
        for (window, piece) in cut(row, window_ms)? {
            days.entry(window.div_euclid(DAY_MS)).or_default().push(piece);
        }
    }
    Ok(days)
}

/// Cuts one row at windows; the keys are the windows' beginnings.
fn cut(row: &SeriesRow, window_ms: i64) -> Result<BTreeMap<i64, Piece<'_>>> {
    let samples = &row.samples;
    check(row)?;
    let mut pieces: BTreeMap<i64, Piece<'_>> = BTreeMap::new();
    for (window, range) in window_ranges(&samples.floats.timestamps, window_ms, |t| *t) {
        pieces.entry(window).or_insert_with(|| Piece::new(row)).floats = range;
    }
    for (window, range) in window_ranges(&samples.histograms.timestamps, window_ms, |t| *t) {
        pieces.entry(window).or_insert_with(|| Piece::new(row)).histograms = range;
    }
    for (window, range) in window_ranges(&samples.start_timestamps, window_ms, |s| s.0) {
        pieces.entry(window).or_insert_with(|| Piece::new(row)).starts = range;
    }
    // An exemplar without a time goes where the series begins; where there is nothing else, to the epoch.
    let first_window = pieces.keys().next().copied().unwrap_or(0);
    for (i, exemplar) in samples.exemplars.iter().enumerate() {
        let window = exemplar.timestamp.map_or(first_window, |t| window_of(t.millis(), window_ms));
        pieces.entry(window).or_insert_with(|| Piece::new(row)).exemplars.push(i);
    }
    Ok(pieces)
}

fn check(row: &SeriesRow) -> Result<()> {
    let samples = &row.samples;
    let invalid =
        |reason: &str| Err(Error::InvalidRow { series: row.labels.to_string(), reason: reason.to_owned() });
    if samples.floats.timestamps.len() != samples.floats.values.len()
        || samples.histograms.timestamps.len() != samples.histograms.values.len()
    {
        return invalid("it has not as many values as times");
    }
    let is_storable = |t: i64| (TIME_MIN..=TIME_MAX).contains(&t);
    let times = [&samples.floats.timestamps, &samples.histograms.timestamps];
    let is_good = times.iter().all(|t| t.iter().all(|t| is_storable(*t)) && t.is_sorted_by(|a, b| a < b))
        && samples.start_timestamps.iter().all(|(t, _)| is_storable(*t))
        && samples.start_timestamps.is_sorted_by(|a, b| a.0 < b.0)
        && samples.exemplars.iter().all(|e| e.timestamp.is_none_or(|t| is_storable(t.millis())));
    if is_good { Ok(()) } else { invalid("its times are not ascending or not within the years 1 to 9999") }
}

/// The beginning of the window that holds an instant.
pub(crate) fn window_of(t: i64, window_ms: i64) -> i64 {
    t.div_euclid(window_ms) * window_ms
}

/// Splits an ascending list at windows.
fn window_ranges<T>(items: &[T], window_ms: i64, time: impl Fn(&T) -> i64) -> Vec<(i64, Range<usize>)> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < items.len() {
        let window = window_of(time(&items[start]), window_ms);
        let end = start + items[start..].partition_point(|i| time(i) < window + window_ms);
        ranges.push((window, start..end));
        start = end;
    }
    ranges
}

/// The number of the UTC day that holds an instant, counted from the epoch.
pub(crate) fn day_number(t: i64) -> i64 {
    t.div_euclid(DAY_MS)
}

/// Writes a day as `YYYY-MM-DD`.
///
/// The proleptic Gregorian calendar by eras of 400 years that begin on 1 March, so that leap days come last.
pub(crate) fn day_name(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

/// The first instant of a day written as `YYYY-MM-DD`; `None` when it is no day.
pub(crate) fn day_start(name: &str) -> Option<i64> {
    let mut parts = name.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (month_from_march, year) = if month > 2 { (month - 3, year) } else { (month + 9, year - 1) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let number =
        era * 146_097 + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    // What is no day of the calendar has another name.
    (day_name(number) == name).then_some(number * DAY_MS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Exemplar, Labels, Metadata, Timestamp};

    use super::*;
    use crate::series::{FloatColumn, SeriesSamples};

    #[test]
    fn days_are_those_of_the_calendar() {
        // Days since the epoch as GNU date gives them: date -u -d 2000-02-29 +%s, divided by 86400.
        for (day, name) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_780, "2026-11-23"),
            (19_782, "2024-02-29"),
            (-719_162, "0001-01-01"),
            (2_932_896, "9999-12-31"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(day_name(day), name);
            assert_eq!(day_start(name), Some(day * DAY_MS));
        }
        for name in ["", "2026-11", "2026-02-29", "2026-13-01", "2026-1-1", "2026-11-23-", "day"] {
            assert_eq!(day_start(name), None, "{name}");
        }
        assert_eq!((day_number(TIME_MIN), day_number(TIME_MAX)), (-719_162, 2_932_896));
    }

    fn row(times: &[i64], exemplars: &[Option<i64>]) -> SeriesRow {
        let exemplar =
            |t: &Option<i64>| Exemplar { labels: Labels::empty(), value: 1.0, timestamp: t.map(Timestamp) };
        SeriesRow {
            labels: Labels::from_pairs([("__name__", "m")]),
            metadata: Arc::new(Metadata::default()),
            samples: SeriesSamples {
                floats: FloatColumn { timestamps: times.into(), values: vec![0.0; times.len()].into() },
                exemplars: exemplars.iter().map(exemplar).collect(),
                ..SeriesSamples::default()
            },
        }
    }

    #[test]
    fn rows_are_cut_at_two_hours_and_days() {
        let h = 3_600_000;
        let row = row(&[-1, 0, 2 * h - 1, 2 * h, 23 * h, 24 * h], &[None, Some(5 * h)]);
        let days = pieces_by_day(std::slice::from_ref(&row), WINDOW_MS).expect("valid");
        type Shape = Vec<(Range<usize>, Vec<usize>)>;
        let shape: Vec<(i64, Shape)> = days
            .iter()
            .map(|(d, p)| (*d, p.iter().map(|p| (p.floats.clone(), p.exemplars.clone())).collect()))
            .collect();
        assert_eq!(
            shape,
            [
                (-1, vec![(0..1, vec![0])]),
                (0, vec![(1..3, vec![]), (3..4, vec![]), (0..0, vec![1]), (4..5, vec![])]),
                (1, vec![(5..6, vec![])]),
            ]
        );
        let ranges: Vec<(i64, i64)> = days[&0].iter().map(Piece::time_range).collect();
        assert_eq!(ranges, [(0, 2 * h - 1), (2 * h, 2 * h), (5 * h, 5 * h), (23 * h, 23 * h)]);
        let days = pieces_by_day(std::slice::from_ref(&row), DAY_WINDOW_MS).expect("valid");
        let ranges: Vec<(i64, i64)> = days[&0].iter().map(Piece::time_range).collect();
        assert_eq!(ranges, [(0, 5 * h), (23 * h, 23 * h)]);
    }

    #[test]
    fn times_without_a_calendar_day_are_refused() {
        for times in [&[TIME_MIN - 1][..], &[TIME_MAX + 1], &[i64::MIN], &[i64::MAX], &[2, 1], &[1, 1]] {
            assert!(
                matches!(pieces_by_day(&[row(times, &[])], WINDOW_MS), Err(Error::InvalidRow { .. })),
                "{times:?}"
            );
        }
        assert!(pieces_by_day(&[row(&[TIME_MIN, TIME_MAX], &[])], WINDOW_MS).is_ok());
        let mut uneven = row(&[1, 2], &[]);
        uneven.samples.floats.values = Arc::from([1.0]);
        assert!(matches!(pieces_by_day(&[uneven], WINDOW_MS), Err(Error::InvalidRow { .. })));
    }
}
