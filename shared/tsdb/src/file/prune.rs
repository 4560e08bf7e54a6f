//! Says from statistics alone which row groups and pages of a file can hold what is asked for.
//!
//! Invariant: pruning only drops rows that cannot match; whoever reads the rest still has to match each row.

use model::labels::METRIC_NAME;
use model::{MatchOp, Matcher};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::schema::{LABEL_PREFIX, name};

/// What is asked of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    /// All of them must accept a series.
    pub matchers: &'a [Matcher],
    /// The earliest time wanted.
    pub min_time: i64,
    /// The latest time wanted.
    pub max_time: i64,
}

/// A row group that may hold something, and which of its rows.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The row group's number.
    pub row_group: usize,
    /// The rows that may match.
    pub rows: RowSelection,
}

/// What is known of a column's values in some rows.
enum Bounds<'a> {
    /// Nothing.
    Unknown,
    /// All are null.
    Null,
    /// Text between these, which may have been cut short on the safe side; and perhaps nulls.
    Text { min: &'a [u8], max: &'a [u8], has_nulls: bool },
    /// Numbers between these.
    Long { min: i64, max: i64 },
}

/// A condition on one column.
enum Condition<'a> {
    Label { matcher: &'a Matcher, is_metric: bool },
    AtMost(i64),
    AtLeast(i64),
}

impl Condition<'_> {
    fn can_hold(&self, bounds: &Bounds<'_>) -> bool {
        match (self, bounds) {
            // A null in the column of a label says that the series has no such label; a null metric, that the row is
            // no series at all. A null time says that nothing is known.
            (Self::Label { matcher, is_metric }, Bounds::Null) => !is_metric && matcher.matches_empty(),
            (Self::Label { matcher, is_metric }, Bounds::Text { min, max, has_nulls }) => {
                (*has_nulls && !is_metric && matcher.matches_empty()) || text_can_match(matcher, min, max)
            }
            (Self::AtMost(limit), Bounds::Long { min, .. }) => min <= limit,
            (Self::AtLeast(limit), Bounds::Long { max, .. }) => max >= limit,
            _ => true,
        }
    }
}

fn text_can_match(matcher: &Matcher, min: &[u8], max: &[u8]) -> bool {
    let is_within = |text: &str| min <= text.as_bytes() && text.as_bytes() <= max;
    match (matcher.op(), matcher.pattern()) {
        (MatchOp::Equal, _) => is_within(matcher.value()),
        (MatchOp::Regex, Some(pattern)) => match pattern.literals() {
            Some(literals) => literals.iter().any(|l| is_within(l)),
            None => {
                let prefix = pattern.prefix().as_bytes();
                &min[..min.len().min(prefix.len())] <= prefix && prefix <= max
            }
        },
        _ => true,
    }
}

/// Returns the row groups that may hold matching series, without the timeline rows.
pub(crate) fn candidates(metadata: &ParquetMetaData, query: &Query<'_>) -> Vec<Candidate> {
    let conditions = conditions(metadata, query);
    let timeline_groups = timeline_row_groups(metadata);
    (timeline_groups..metadata.num_row_groups())
        .filter_map(|row_group| {
            let rows = candidate_rows(metadata, row_group, &conditions)?;
            rows.selects_any().then_some(Candidate { row_group, rows })
        })
        .collect()
}

/// Counts the row groups at the file's beginning that hold timeline rows.
pub(crate) fn timeline_row_groups(metadata: &ParquetMetaData) -> usize {
    let Some(metric) = leaf(metadata, name::METRIC) else { return 0 };
    let is_timelines = |group: &&parquet::file::metadata::RowGroupMetaData| {
        matches!(chunk_bounds(group.column(metric).statistics(), group.num_rows()), Bounds::Null)
    };
    metadata.row_groups().iter().take_while(is_timelines).count()
}

/// Returns the leaf number of a column that is no list, map or struct.
fn leaf(metadata: &ParquetMetaData, column: &str) -> Option<usize> {
    let schema = metadata.file_metadata().schema_descr();
    schema.columns().iter().position(|c| matches!(c.path().parts(), [only] if only == column))
}

fn conditions<'a>(metadata: &ParquetMetaData, query: &Query<'a>) -> Vec<(usize, Condition<'a>)> {
    let mut conditions = Vec::new();
    for matcher in query.matchers {
        let is_metric = matcher.name() == METRIC_NAME;
        let column =
            if is_metric { name::METRIC.to_owned() } else { format!("{LABEL_PREFIX}{}", matcher.name()) };
        conditions.extend(leaf(metadata, &column).map(|l| (l, Condition::Label { matcher, is_metric })));
    }
    conditions.extend(leaf(metadata, name::MIN_TIME).map(|l| (l, Condition::AtMost(query.max_time))));
    conditions.extend(leaf(metadata, name::MAX_TIME).map(|l| (l, Condition::AtLeast(query.min_time))));
    conditions
}

/// The rows of one row group that may match, or `None` when none can.
fn candidate_rows(
    metadata: &ParquetMetaData,
    row_group: usize,
    conditions: &[(usize, Condition<'_>)],
) -> Option<RowSelection> {
    let group = metadata.row_group(row_group);
    let rows = usize::try_from(group.num_rows()).ok()?;
    let mut selection = RowSelection::from(vec![RowSelector::select(rows)]);
    for (leaf, condition) in conditions {
        if !condition.can_hold(&chunk_bounds(group.column(*leaf).statistics(), group.num_rows())) {
            return None;
        }
        if let Some(pages) = page_selection(metadata, row_group, rows, *leaf, condition) {
            selection = selection.intersection(&pages);
        }
    }
    Some(selection)
}

fn chunk_bounds(statistics: Option<&Statistics>, rows: i64) -> Bounds<'_> {
    let Some(statistics) = statistics else { return Bounds::Unknown };
    let nulls = statistics.null_count_opt();
    if nulls.is_some_and(|n| i64::try_from(n) == Ok(rows)) {
        return Bounds::Null;
    }
    match statistics {
        Statistics::Int64(s) => match (s.min_opt(), s.max_opt(), nulls) {
            (Some(min), Some(max), Some(0)) => Bounds::Long { min: *min, max: *max },
            _ => Bounds::Unknown,
        },
        Statistics::ByteArray(s) => match (s.min_bytes_opt(), s.max_bytes_opt()) {
            (Some(min), Some(max)) => Bounds::Text { min, max, has_nulls: nulls != Some(0) },
            _ => Bounds::Unknown,
        },
        _ => Bounds::Unknown,
    }
}

fn page_bounds(index: &ColumnIndexMetaData, page: usize) -> Bounds<'_> {
    if index.is_null_page(page) {
        return Bounds::Null;
    }
    let nulls = index.null_count(page);
    match index {
        ColumnIndexMetaData::INT64(i) => match (i.min_value(page), i.max_value(page), nulls) {
            (Some(min), Some(max), Some(0)) => Bounds::Long { min: *min, max: *max },
            _ => Bounds::Unknown,
        },
        ColumnIndexMetaData::BYTE_ARRAY(i) => match (i.min_value(page), i.max_value(page)) {
            (Some(min), Some(max)) => Bounds::Text { min, max, has_nulls: nulls != Some(0) },
            _ => Bounds::Unknown,
        },
        _ => Bounds::Unknown,
    }
}

fn page_selection(
    metadata: &ParquetMetaData,
    row_group: usize,
    rows: usize,
    leaf: usize,
    condition: &Condition<'_>,
) -> Option<RowSelection> {
    let pages = metadata.page_index_for_row_group(row_group);
    let (index, locations) = (pages.column_index(leaf)?, pages.page_locations(leaf)?);
    let mut selectors = Vec::with_capacity(locations.len());
    for (page, location) in locations.iter().enumerate() {
        let first = usize::try_from(location.first_row_index).ok()?;
        let next = locations.get(page + 1).map(|l| usize::try_from(l.first_row_index));
        let end = next.transpose().ok()?.unwrap_or(rows);
        let count = end.checked_sub(first)?;
        let is_candidate = condition.can_hold(&page_bounds(index, page));
        selectors.push(if is_candidate { RowSelector::select(count) } else { RowSelector::skip(count) });
    }
    Some(RowSelection::from(selectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_bounds_keep_what_can_match() {
        let matcher = |op, value: &str| Matcher::new(op, "l", value).expect("valid");
        let bounds = |min: &'static str, max: &'static str| Bounds::Text {
            min: min.as_bytes(),
            max: max.as_bytes(),
            has_nulls: true,
        };
        for (op, value, can_match_b_to_d, can_match_null) in [
            (MatchOp::Equal, "a", false, false),
            (MatchOp::Equal, "b", true, false),
            (MatchOp::Equal, "cc", true, false),
            (MatchOp::Equal, "da", false, false),
            (MatchOp::Equal, "", true, true),
            (MatchOp::Regex, "a|e", false, false),
            (MatchOp::Regex, "a|c", true, false),
            (MatchOp::Regex, "e.*", false, false),
            (MatchOp::Regex, "a.*", false, false),
            (MatchOp::Regex, "b.+", true, false),
            (MatchOp::Regex, "ba[0-9]+", true, false),
            (MatchOp::Regex, ".*", true, true),
            (MatchOp::NotEqual, "b", true, true),
            (MatchOp::NotRegex, "b", true, true),
            (MatchOp::NotRegex, ".*", true, false),
        ] {
            let matcher = matcher(op, value);
            let condition = Condition::Label { matcher: &matcher, is_metric: false };
            assert_eq!(condition.can_hold(&bounds("b", "d")), can_match_b_to_d, "{op:?} {value} b to d");
            assert_eq!(condition.can_hold(&Bounds::Null), can_match_null, "{op:?} {value} null");
            assert!(condition.can_hold(&Bounds::Unknown));
            let metric = Condition::Label { matcher: &matcher, is_metric: true };
            assert!(!metric.can_hold(&Bounds::Null), "a row without a metric is no series");
        }
    }

    #[test]
    fn time_bounds_keep_what_overlaps() {
        let bounds = Bounds::Long { min: 10, max: 20 };
        for (min, max, want) in
            [(0, 9, false), (0, 10, true), (20, 30, true), (21, 30, false), (12, 13, true)]
        {
            let both = Condition::AtMost(max).can_hold(&bounds) && Condition::AtLeast(min).can_hold(&bounds);
            assert_eq!(both, want, "{min} to {max}");
        }
    }
}
