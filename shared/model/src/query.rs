//! What a PromQL query answers with.

use std::sync::Arc;

use crate::histogram::FloatHistogram;
use crate::labels::Labels;
use crate::time::Timestamp;

/// One value of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum PointValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorElement {
    /// The element's labels.
    pub labels: Labels,
    /// The time shown with the value.
    pub timestamp: Timestamp,
    /// The value.
    pub value: PointValue,
}

/// One series of a matrix: floats and histograms apart, each in time order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MatrixSeries {
    /// The series' labels.
    pub labels: Labels,
    /// Float points.
    pub floats: Vec<(Timestamp, f64)>,
    /// Histogram points.
    pub histograms: Vec<(Timestamp, Arc<FloatHistogram>)>,
}

/// The value of a whole expression.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    /// A scalar at a time.
    Scalar(Timestamp, f64),
    /// A string at a time.
    String(Timestamp, String),
    /// An instant vector, in the order the expression gives it.
    Vector(Vec<VectorElement>),
    /// A matrix, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// A query's value with what has to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryAnswer {
    /// The value.
    pub value: QueryValue,
    /// Warnings, as the HTTP API prints them.
    pub warnings: Vec<String>,
    /// Infos, as the HTTP API prints them.
    pub infos: Vec<String>,
    /// What the evaluation read and held.
    pub stats: QueryStats,
}

/// How much a query read and held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryStats {
    /// Samples looked at over all steps.
    pub samples_total: u64,
    /// Samples read from the source.
    pub samples_read: u64,
    /// The most samples held in memory at one time.
    pub samples_peak: u64,
    /// The same counts by step, where that was asked for.
    pub steps: Vec<StepStats>,
}

/// How much was read for one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepStats {
    /// The step's time.
    pub time: Timestamp,
    /// Samples looked at.
    pub samples_total: u64,
    /// Samples read that no earlier step had seen.
    pub samples_read: u64,
}
