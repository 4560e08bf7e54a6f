//! Samples: a value at a time, exemplars, and the staleness marker.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::time::Timestamp;

/// The bits of the NaN that marks the end of a series, as Prometheus fixed them.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Returns the staleness marker.
#[must_use]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Says whether a float is the staleness marker.
#[must_use]
pub fn is_stale(x: f64) -> bool {
    x.to_bits() == STALE_NAN_BITS
}

/// What a sample holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// A float; the staleness marker is one of them.
    Float(f64),
    /// A native histogram; one whose sum is the staleness marker is a marker as well.
    Histogram(Arc<Histogram>),
}

impl Value {
    /// Says whether this is a staleness marker.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Float(x) => is_stale(*x),
            Self::Histogram(h) => is_stale(h.sum()),
        }
    }

    /// Borrows the value.
    #[must_use]
    pub fn by_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Float(x) => ValueRef::Float(*x),
            Self::Histogram(h) => ValueRef::Histogram(h),
        }
    }
}

/// A [`Value`] that somebody else holds.
#[derive(Debug, Clone, Copy)]
pub enum ValueRef<'a> {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(&'a Arc<Histogram>),
}

impl ValueRef<'_> {
    /// Says which of two accounts of one series at one time stays, which is the greater: a real sample beats a
    /// staleness marker, a histogram beats a float, then the bits decide.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits().cmp(&b.to_bits()),
            (Self::Histogram(a), Self::Histogram(b)) => a.compare(b),
            (Self::Float(_), Self::Histogram(_)) | (Self::Histogram(_), Self::Float(_)) => {
                unreachable!("the ranks differ")
            }
        })
    }

    /// Whether it is real, and whether it is a histogram.
    fn rank(&self) -> (bool, bool) {
        match self {
            Self::Float(x) => (!is_stale(*x), false),
            Self::Histogram(h) => (!is_stale(h.sum()), true),
        }
    }
}

impl PartialEq for Value {
    /// Compares bit for bit, so that a NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a.bit_eq(b),
            _ => false,
        }
    }
}

/// An example of what was counted, usually with a trace id.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// The exemplar's own labels.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// When it was observed; `None` where the exposition gave no time.
    pub timestamp: Option<Timestamp>,
}
