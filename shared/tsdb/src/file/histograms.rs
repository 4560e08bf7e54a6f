//! The columns that hold lists of structs: native histograms, start times, exemplars.
//!
//! Integer populations are stored bucket by bucket, not as differences, so that anyone can add them up; both
//! directions wrap, so that they are each other's inverse for any input. Counts are 64-bit patterns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray,
};
use model::{
    CounterResetHint, Exemplar, FloatHistogram, Histogram, IntegerHistogram, Span, Timestamp, is_stale,
    stale_nan,
};

use super::arrays::{
    LabelMaps, LabelMapsReader, ListShape, ShapeError, downcast, field, list_range, struct_array,
};
use super::schema;

/// A list column of numbers inside the struct.
#[derive(Debug)]
struct NumberLists<T> {
    values: Vec<T>,
    shape: ListShape,
}

impl<T> Default for NumberLists<T> {
    fn default() -> Self {
        Self { values: Vec::new(), shape: ListShape::default() }
    }
}

impl<T> NumberLists<T> {
    fn push(&mut self, values: impl IntoIterator<Item = T>) {
        let before = self.values.len();
        self.values.extend(values);
        self.shape.push(self.values.len() - before);
    }
}

impl NumberLists<i64> {
    fn finish(self) -> ArrayRef {
        self.shape.finish(Arc::new(Int64Array::from(self.values)))
    }
}

impl NumberLists<f64> {
    fn finish(self) -> ArrayRef {
        self.shape.finish(Arc::new(Float64Array::from(self.values)))
    }
}

/// A list column of spans inside the struct.
#[derive(Debug, Default)]
struct SpanLists {
    offsets: Vec<i32>,
    lengths: Vec<i32>,
    shape: ListShape,
}

impl SpanLists {
    fn push(&mut self, spans: &[Span]) {
        self.offsets.extend(spans.iter().map(|s| s.offset));
        self.lengths.extend(spans.iter().map(|s| s.length.cast_signed()));
        self.shape.push(spans.len());
    }

    fn finish(self) -> ArrayRef {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(self.offsets)), Arc::new(Int32Array::from(self.lengths))];
        self.shape.finish(struct_array(schema::span_fields(), columns))
    }
}

/// Builds the `histograms` column.
#[derive(Debug, Default)]
pub(crate) struct Histograms {
    rows: ListShape,
    timestamps: Vec<i64>,
    reset_hints: Vec<&'static str>,
    schemas: Vec<i32>,
    zero_thresholds: Vec<f64>,
    sums: Vec<Option<f64>>,
    counts: Vec<Option<i64>>,
    zero_counts: Vec<Option<i64>>,
    positive_counts: NumberLists<i64>,
    negative_counts: NumberLists<i64>,
    float_counts: Vec<Option<f64>>,
    float_zero_counts: Vec<Option<f64>>,
    positive_floats: NumberLists<f64>,
    negative_floats: NumberLists<f64>,
    positive_spans: SpanLists,
    negative_spans: SpanLists,
    custom_values: NumberLists<f64>,
}

impl Histograms {
    /// Adds a row; a row without histograms is null.
    pub(crate) fn push<'a>(&mut self, histograms: impl Iterator<Item = (i64, &'a Arc<Histogram>)>) {
        let before = self.timestamps.len();
        for (t, histogram) in histograms {
            self.timestamps.push(t);
            match &**histogram {
                Histogram::Integer(h) => self.push_integer(h),
                Histogram::Float(h) => self.push_float(h),
            }
        }
        self.rows.push_or_null(self.timestamps.len() - before);
    }

    fn push_integer(&mut self, h: &IntegerHistogram) {
        self.push_common(h.counter_reset_hint, h.schema, h.zero_threshold, h.sum);
        self.push_layout(&h.positive_spans, &h.negative_spans, &h.custom_values);
        self.counts.push(Some(h.count.cast_signed()));
        self.zero_counts.push(Some(h.zero_count.cast_signed()));
        self.positive_counts.push(absolute(&h.positive_deltas));
        self.negative_counts.push(absolute(&h.negative_deltas));
        self.float_counts.push(None);
        self.float_zero_counts.push(None);
        self.positive_floats.shape.push_null();
        self.negative_floats.shape.push_null();
    }

    fn push_float(&mut self, h: &FloatHistogram) {
        self.push_common(h.counter_reset_hint, h.schema, h.zero_threshold, h.sum);
        self.push_layout(&h.positive_spans, &h.negative_spans, &h.custom_values);
        self.counts.push(None);
        self.zero_counts.push(None);
        self.positive_counts.shape.push_null();
        self.negative_counts.shape.push_null();
        self.float_counts.push(Some(h.count));
        self.float_zero_counts.push(Some(h.zero_count));
        self.positive_floats.push(h.positive_buckets.iter().copied());
        self.negative_floats.push(h.negative_buckets.iter().copied());
    }

    fn push_common(&mut self, hint: CounterResetHint, schema: i32, zero_threshold: f64, sum: f64) {
        self.reset_hints.push(hint_name(hint));
        self.schemas.push(schema);
        self.zero_thresholds.push(zero_threshold);
        self.sums.push((!is_stale(sum)).then_some(sum));
    }

    fn push_layout(&mut self, positive: &[Span], negative: &[Span], custom_values: &[f64]) {
        self.positive_spans.push(positive);
        self.negative_spans.push(negative);
        self.custom_values.push(custom_values.iter().copied());
    }

    /// Makes the list array.
    pub(crate) fn finish(self) -> ArrayRef {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(self.timestamps)),
            Arc::new(StringArray::from(self.reset_hints)),
            Arc::new(Int32Array::from(self.schemas)),
            Arc::new(Float64Array::from(self.zero_thresholds)),
            Arc::new(Float64Array::from(self.sums)),
            Arc::new(Int64Array::from(self.counts)),
            Arc::new(Int64Array::from(self.zero_counts)),
            self.positive_counts.finish(),
            self.negative_counts.finish(),
            Arc::new(Float64Array::from(self.float_counts)),
            Arc::new(Float64Array::from(self.float_zero_counts)),
            self.positive_floats.finish(),
            self.negative_floats.finish(),
            self.positive_spans.finish(),
            self.negative_spans.finish(),
            self.custom_values.finish(),
        ];
        self.rows.finish(struct_array(schema::histogram_fields(), columns))
    }
}

fn absolute(deltas: &[i64]) -> impl Iterator<Item = i64> + '_ {
    deltas.iter().scan(0_i64, |population, delta| {
        *population = population.wrapping_add(*delta);
        Some(*population)
    })
}

fn deltas(populations: &[i64]) -> Vec<i64> {
    let before = std::iter::once(0).chain(populations.iter().copied());
    populations.iter().zip(before).map(|(p, b)| p.wrapping_sub(b)).collect()
}

const HINTS: [(CounterResetHint, &str); 4] = [
    (CounterResetHint::Unknown, "unknown"),
    (CounterResetHint::Reset, "reset"),
    (CounterResetHint::NotReset, "not_reset"),
    (CounterResetHint::Gauge, "gauge"),
];

fn hint_name(hint: CounterResetHint) -> &'static str {
    HINTS.iter().find(|(h, _)| *h == hint).map_or("unknown", |(_, name)| name)
}

/// Reads the `histograms` column.
#[derive(Debug)]
pub(crate) struct HistogramsReader<'a> {
    rows: &'a ListArray,
    timestamps: &'a Int64Array,
    reset_hints: &'a StringArray,
    schemas: &'a Int32Array,
    zero_thresholds: &'a Float64Array,
    sums: &'a Float64Array,
    counts: &'a Int64Array,
    zero_counts: &'a Int64Array,
    positive_counts: NumbersReader<'a, Int64Array>,
    negative_counts: NumbersReader<'a, Int64Array>,
    float_counts: &'a Float64Array,
    float_zero_counts: &'a Float64Array,
    positive_floats: NumbersReader<'a, Float64Array>,
    negative_floats: NumbersReader<'a, Float64Array>,
    positive_spans: SpansReader<'a>,
    negative_spans: SpansReader<'a>,
    custom_values: NumbersReader<'a, Float64Array>,
}

/// A list column of numbers and its elements.
#[derive(Debug)]
struct NumbersReader<'a, T> {
    lists: &'a ListArray,
    values: &'a T,
}

impl<'a, T: Array + 'static> NumbersReader<'a, T> {
    fn new(array: &'a StructArray, name: &str) -> Result<Self, ShapeError> {
        let lists: &ListArray = field(array, name)?;
        Ok(Self { lists, values: downcast(lists.values(), name)? })
    }
}

impl NumbersReader<'_, Int64Array> {
    fn read(&self, row: usize) -> &[i64] {
        &self.values.values()[list_range(self.lists, row)]
    }
}

impl NumbersReader<'_, Float64Array> {
    fn read(&self, row: usize) -> &[f64] {
        &self.values.values()[list_range(self.lists, row)]
    }
}

#[derive(Debug)]
struct SpansReader<'a> {
    lists: &'a ListArray,
    offsets: &'a Int32Array,
    lengths: &'a Int32Array,
}

impl<'a> SpansReader<'a> {
    fn new(array: &'a StructArray, name: &str) -> Result<Self, ShapeError> {
        let lists: &ListArray = field(array, name)?;
        let spans: &StructArray = downcast(lists.values(), name)?;
        Ok(Self { lists, offsets: field(spans, "offset")?, lengths: field(spans, "length")? })
    }

    fn read(&self, row: usize) -> Vec<Span> {
        let span = |i| Span { offset: self.offsets.value(i), length: self.lengths.value(i).cast_unsigned() };
        list_range(self.lists, row).map(span).collect()
    }
}

impl<'a> HistogramsReader<'a> {
    /// Takes the column apart.
    pub(crate) fn new(rows: &'a ListArray) -> Result<Self, ShapeError> {
        let all: &StructArray = downcast(rows.values(), schema::name::HISTOGRAMS)?;
        Ok(Self {
            rows,
            timestamps: field(all, "timestamp")?,
            reset_hints: field(all, "reset_hint")?,
            schemas: field(all, "schema")?,
            zero_thresholds: field(all, "zero_threshold")?,
            sums: field(all, "sum")?,
            counts: field(all, "count")?,
            zero_counts: field(all, "zero_count")?,
            positive_counts: NumbersReader::new(all, "positive_counts")?,
            negative_counts: NumbersReader::new(all, "negative_counts")?,
            float_counts: field(all, "float_count")?,
            float_zero_counts: field(all, "float_zero_count")?,
            positive_floats: NumbersReader::new(all, "positive_floats")?,
            negative_floats: NumbersReader::new(all, "negative_floats")?,
            positive_spans: SpansReader::new(all, "positive_spans")?,
            negative_spans: SpansReader::new(all, "negative_spans")?,
            custom_values: NumbersReader::new(all, "custom_values")?,
        })
    }

    /// Reads the histograms of one row whose time the predicate keeps.
    pub(crate) fn read(&self, row: usize, keep: impl Fn(i64) -> bool) -> Vec<(i64, Arc<Histogram>)> {
        list_range(self.rows, row)
            .map(|i| (self.timestamps.value(i), i))
            .filter(|(t, _)| keep(*t))
            .map(|(t, i)| (t, Arc::new(self.histogram(i))))
            .collect()
    }

    fn histogram(&self, i: usize) -> Histogram {
        let hint = self.reset_hints.value(i);
        let counter_reset_hint =
            HINTS.iter().find(|(_, name)| *name == hint).map_or(CounterResetHint::Unknown, |(h, _)| *h);
        let (schema, zero_threshold) = (self.schemas.value(i), self.zero_thresholds.value(i));
        let sum = if self.sums.is_null(i) { stale_nan() } else { self.sums.value(i) };
        let (positive_spans, negative_spans) = (self.positive_spans.read(i), self.negative_spans.read(i));
        let custom_values: Arc<[f64]> = self.custom_values.read(i).into();
        if self.counts.is_null(i) {
            return Histogram::Float(FloatHistogram {
                counter_reset_hint,
                schema,
                zero_threshold,
                zero_count: self.float_zero_counts.value(i),
                count: self.float_counts.value(i),
                sum,
                positive_spans,
                negative_spans,
                positive_buckets: self.positive_floats.read(i).to_vec(),
                negative_buckets: self.negative_floats.read(i).to_vec(),
                custom_values,
            });
        }
        Histogram::Integer(IntegerHistogram {
            counter_reset_hint,
            schema,
            zero_threshold,
            zero_count: self.zero_counts.value(i).cast_unsigned(),
            count: self.counts.value(i).cast_unsigned(),
            sum,
            positive_spans,
            negative_spans,
            positive_deltas: deltas(self.positive_counts.read(i)),
            negative_deltas: deltas(self.negative_counts.read(i)),
            custom_values,
        })
    }
}

/// Builds the `start_timestamps` column.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    rows: ListShape,
    timestamps: Vec<i64>,
    starts: Vec<i64>,
}

impl Starts {
    /// Adds a row; a row without start times is null.
    pub(crate) fn push(&mut self, starts: &[(i64, i64)]) {
        self.timestamps.extend(starts.iter().map(|s| s.0));
        self.starts.extend(starts.iter().map(|s| s.1));
        self.rows.push_or_null(starts.len());
    }

    /// Makes the list array.
    pub(crate) fn finish(self) -> ArrayRef {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(self.timestamps)), Arc::new(Int64Array::from(self.starts))];
        self.rows.finish(struct_array(schema::start_fields(), columns))
    }
}

/// Reads one row of the `start_timestamps` column.
pub(crate) fn read_starts(
    rows: &ListArray,
    row: usize,
    keep: impl Fn(i64) -> bool,
) -> Result<Vec<(i64, i64)>, ShapeError> {
    let all: &StructArray = downcast(rows.values(), schema::name::START_TIMESTAMPS)?;
    let (timestamps, starts): (&Int64Array, &Int64Array) = (field(all, "timestamp")?, field(all, "start")?);
    let pairs = list_range(rows, row).map(|i| (timestamps.value(i), starts.value(i)));
    Ok(pairs.filter(|(t, _)| keep(*t)).collect())
}

/// Builds the `exemplars` column.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    rows: ListShape,
    labels: LabelMaps,
    values: Vec<f64>,
    timestamps: Vec<Option<i64>>,
}

impl Exemplars {
    /// Adds a row; a row without exemplars is null.
    pub(crate) fn push<'a>(&mut self, exemplars: impl Iterator<Item = &'a Exemplar>) {
        let before = self.values.len();
        for exemplar in exemplars {
            self.labels.push(&exemplar.labels, |_| true);
            self.values.push(exemplar.value);
            self.timestamps.push(exemplar.timestamp.map(Timestamp::millis));
        }
        self.rows.push_or_null(self.values.len() - before);
    }

    /// Makes the list array.
    pub(crate) fn finish(self) -> ArrayRef {
        let columns: Vec<ArrayRef> = vec![
            self.labels.finish(),
            Arc::new(Float64Array::from(self.values)),
            Arc::new(Int64Array::from(self.timestamps)),
        ];
        self.rows.finish(struct_array(schema::exemplar_fields(), columns))
    }
}

/// Reads one row of the `exemplars` column; those without a time are always kept.
pub(crate) fn read_exemplars(
    rows: &ListArray,
    row: usize,
    keep: impl Fn(i64) -> bool,
) -> Result<Vec<Exemplar>, ShapeError> {
    let range = list_range(rows, row);
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let all: &StructArray = downcast(rows.values(), schema::name::EXEMPLARS)?;
    let labels = LabelMapsReader::new(field::<MapArray>(all, "labels")?)?;
    let values: &Float64Array = field(all, "value")?;
    let timestamps: &Int64Array = field(all, "timestamp")?;
    let exemplar = |i: usize| Exemplar {
        labels: labels.labels(i, ""),
        value: values.value(i),
        timestamp: (!timestamps.is_null(i)).then(|| Timestamp(timestamps.value(i))),
    };
    Ok(range.map(exemplar).filter(|e| e.timestamp.is_none_or(|t| keep(t.millis()))).collect())
}
