//! Turns decoded batches into rows of series. Synchronous: run it off the async threads.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
};
use model::{Histogram, Labels, Metadata, MetricType, stale_nan};

use super::arrays::{LabelMapsReader, ShapeError, column, downcast, list_range};
use super::columns::{SCALE_MAX, from_decimal};
use super::histograms::{HistogramsReader, read_exemplars, read_starts};
use super::prune::Query;
use super::schema::name;
use crate::series::{FloatColumn, HistogramColumn, SeriesRow, SeriesSamples, Timeline};

/// The columns that make up a series without its samples.
pub(crate) const SERIES_COLUMNS: [&str; 5] = [name::METRIC, name::LABELS, name::TYPE, name::UNIT, name::HELP];
/// The columns that hold samples.
pub(crate) const SAMPLE_COLUMNS: [&str; 10] = [
    name::TIMELINE,
    name::OFFSET,
    name::COUNT,
    name::TIMESTAMPS,
    name::INTS,
    name::SCALE,
    name::FLOATS,
    name::HISTOGRAMS,
    name::START_TIMESTAMPS,
    name::EXEMPLARS,
];
/// The columns of timeline rows.
pub(crate) const TIMELINE_COLUMNS: [&str; 2] = [name::TIMELINE, name::TIMESTAMPS];

/// Metadata already seen in a file, so that equal ones share an allocation.
pub(crate) type MetadataCache = HashMap<Metadata, Arc<Metadata>>;

/// Reads the labels and metadata of every row of a batch that has [`SERIES_COLUMNS`].
pub(crate) fn series(
    batch: &RecordBatch,
    cache: &mut MetadataCache,
) -> Result<Vec<(Labels, Arc<Metadata>)>, ShapeError> {
    let metric: &StringArray = column(batch, name::METRIC)?;
    let labels = LabelMapsReader::new(column::<MapArray>(batch, name::LABELS)?)?;
    let (kind, unit, help): (&StringArray, &StringArray, &StringArray) =
        (column(batch, name::TYPE)?, column(batch, name::UNIT)?, column(batch, name::HELP)?);
    let text = |column: &StringArray, row: usize| {
        Arc::<str>::from(if column.is_null(row) { "" } else { column.value(row) })
    };
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let metadata = Metadata {
            kind: kind.value(row).parse::<MetricType>().unwrap_or_default(),
            unit: text(unit, row),
            help: text(help, row),
        };
        let shared = match cache.get(&metadata) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(metadata.clone());
                cache.insert(metadata, Arc::clone(&new));
                new
            }
        };
        rows.push((labels.labels(row, metric.value(row)), shared));
    }
    Ok(rows)
}

/// The numbers of the timelines that a batch's rows point at.
pub(crate) fn timelines_of(batch: &RecordBatch) -> Result<BTreeSet<usize>, ShapeError> {
    let timelines: &Int32Array = column(batch, name::TIMELINE)?;
    timelines.iter().flatten().map(|t| usize::try_from(t).map_err(|_| format!("timeline {t}"))).collect()
}

/// Reads timeline rows.
pub(crate) fn read_timelines(
    batch: &RecordBatch,
    into: &mut HashMap<usize, Vec<i64>>,
) -> Result<(), ShapeError> {
    let numbers: &Int32Array = column(batch, name::TIMELINE)?;
    let lists: &ListArray = column(batch, name::TIMESTAMPS)?;
    let times: &Int64Array = downcast(lists.values(), name::TIMESTAMPS)?;
    for row in 0..batch.num_rows() {
        let number = usize::try_from(numbers.value(row)).map_err(|_| "a negative timeline".to_owned())?;
        into.insert(number, times.values()[list_range(lists, row)].to_vec());
    }
    Ok(())
}

/// The times that rows of a file share, cut to the time asked for; equal cuts share an allocation.
#[derive(Debug)]
pub(crate) struct SharedTimes {
    timelines: HashMap<usize, Vec<i64>>,
    cuts: HashMap<(usize, usize, usize), Timeline>,
}

impl SharedTimes {
    /// Takes the timelines of a file.
    pub(crate) fn new(timelines: HashMap<usize, Vec<i64>>) -> Self {
        Self { timelines, cuts: HashMap::new() }
    }

    /// Returns the times of a row, and which of its samples they are.
    fn cut(
        &mut self,
        timeline: usize,
        row: Range<usize>,
        query: &Query<'_>,
    ) -> Result<(Timeline, Range<usize>), ShapeError> {
        let times = self.timelines.get(&timeline).and_then(|t| t.get(row.clone()));
        let times = times.ok_or_else(|| format!("timeline {timeline} has no samples {row:?}"))?;
        let kept = kept_range(times, query);
        let cut = self
            .cuts
            .entry((timeline, row.start + kept.start, row.start + kept.end))
            .or_insert_with(|| Timeline::from(&times[kept.clone()]));
        Ok((Arc::clone(cut), kept))
    }
}

/// Which of ascending times lie within the time asked for.
pub(crate) fn kept_range(times: &[i64], query: &Query<'_>) -> Range<usize> {
    let start = times.partition_point(|t| *t < query.min_time);
    let end = times.partition_point(|t| *t <= query.max_time);
    start..end.max(start)
}

/// Reads the samples of every row of a batch that has [`SERIES_COLUMNS`] and [`SAMPLE_COLUMNS`].
pub(crate) fn rows(
    batch: &RecordBatch,
    query: &Query<'_>,
    times: &mut SharedTimes,
    cache: &mut MetadataCache,
) -> Result<Vec<SeriesRow>, ShapeError> {
    let series = series(batch, cache)?;
    let floats = FloatsReader::new(batch)?;
    let histograms = HistogramsReader::new(column(batch, name::HISTOGRAMS)?)?;
    let starts: &ListArray = column(batch, name::START_TIMESTAMPS)?;
    let exemplars: &ListArray = column(batch, name::EXEMPLARS)?;
    let keep = |t: i64| (query.min_time..=query.max_time).contains(&t);
    let mut rows = Vec::with_capacity(series.len());
    for (row, (labels, metadata)) in series.into_iter().enumerate() {
        let (histogram_times, histograms): (Vec<i64>, Vec<Arc<Histogram>>) =
            histograms.read(row, keep).into_iter().unzip();
        let samples = SeriesSamples {
            floats: floats.read(row, query, times)?,
            histograms: HistogramColumn { timestamps: histogram_times.into(), values: histograms.into() },
            start_timestamps: read_starts(starts, row, keep)?.into(),
            exemplars: read_exemplars(exemplars, row, keep)?.into(),
        };
        rows.push(SeriesRow { labels, metadata, samples });
    }
    Ok(rows)
}

/// Reads the columns of float samples.
struct FloatsReader<'a> {
    timelines: &'a Int32Array,
    offsets: &'a Int32Array,
    counts: &'a Int32Array,
    time_lists: &'a ListArray,
    times: &'a Int64Array,
    int_lists: &'a ListArray,
    ints: &'a Int64Array,
    scales: &'a Int32Array,
    float_lists: &'a ListArray,
    floats: &'a Float64Array,
}

impl<'a> FloatsReader<'a> {
    fn new(batch: &'a RecordBatch) -> Result<Self, ShapeError> {
        let time_lists: &ListArray = column(batch, name::TIMESTAMPS)?;
        let int_lists: &ListArray = column(batch, name::INTS)?;
        let float_lists: &ListArray = column(batch, name::FLOATS)?;
        Ok(Self {
            timelines: column(batch, name::TIMELINE)?,
            offsets: column(batch, name::OFFSET)?,
            counts: column(batch, name::COUNT)?,
            time_lists,
            times: downcast(time_lists.values(), name::TIMESTAMPS)?,
            int_lists,
            ints: downcast(int_lists.values(), name::INTS)?,
            scales: column(batch, name::SCALE)?,
            float_lists,
            floats: downcast(float_lists.values(), name::FLOATS)?,
        })
    }

    fn read(
        &self,
        row: usize,
        query: &Query<'_>,
        shared: &mut SharedTimes,
    ) -> Result<FloatColumn, ShapeError> {
        let size = |i: i32| usize::try_from(i).map_err(|_| "a negative count or offset".to_owned());
        let count = size(self.counts.value(row))?;
        if count == 0 {
            return Ok(FloatColumn::default());
        }
        let (timestamps, kept) = if self.timelines.is_null(row) {
            let times = &self.times.values()[list_range(self.time_lists, row)];
            if times.len() != count {
                return Err(format!("{} times for {count} samples", times.len()));
            }
            let kept = kept_range(times, query);
            (Timeline::from(&times[kept.clone()]), kept)
        } else {
            let offset = size(self.offsets.value(row))?;
            shared.cut(size(self.timelines.value(row))?, offset..offset + count, query)?
        };
        Ok(FloatColumn { timestamps, values: self.values(row, count, kept)? })
    }

    fn values(&self, row: usize, count: usize, kept: Range<usize>) -> Result<Arc<[f64]>, ShapeError> {
        let is_decimal = !self.scales.is_null(row);
        let range = list_range(if is_decimal { self.int_lists } else { self.float_lists }, row);
        if range.len() != count {
            return Err(format!("{} values for {count} samples", range.len()));
        }
        let range = range.start + kept.start..range.start + kept.end;
        if !is_decimal {
            if self.floats.null_count() == 0 {
                return Ok(self.floats.values()[range].into());
            }
            let float = |i| if self.floats.is_null(i) { stale_nan() } else { self.floats.value(i) };
            return Ok(range.map(float).collect());
        }
        let scale = usize::try_from(self.scales.value(row)).unwrap_or(usize::MAX);
        if scale > SCALE_MAX {
            return Err(format!("scale {scale}"));
        }
        let int = |i| (!self.ints.is_null(i)).then(|| self.ints.value(i));
        Ok(range.map(|i| from_decimal(int(i), scale)).collect())
    }
}
