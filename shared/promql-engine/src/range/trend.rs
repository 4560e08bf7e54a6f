//! Functions that fit a line or a smoothed curve: `deriv`, `predict_linear`, `double_exponential_smoothing`.

use super::{Arguments, Notes};
use crate::error::{Error, Result};
use crate::kahan::Sum;
use crate::points::Point;
use crate::select::{Slice, Window};

/// Says whether there are enough floats for a line, and notes histograms that are left out.
fn has_line(window: &Window<'_>, notes: &mut Notes) -> bool {
    notes.ignored_histograms |= !window.floats.is_empty() && !window.histograms.is_empty();
    window.floats.len() >= 2
}

pub(super) fn deriv(window: &Window<'_>, notes: &mut Notes) -> Point {
    if !has_line(window, notes) {
        return Point::None;
    }
    // The line is laid through a time near the samples, for precision's sake.
    Point::Float(line(&window.floats, window.floats.times[0]).0)
}

pub(super) fn predict_linear(window: &Window<'_>, seconds: f64, notes: &mut Notes) -> Point {
    if !has_line(window, notes) {
        return Point::None;
    }
    let (slope, intercept) = line(&window.floats, window.time);
    Point::Float(slope * seconds + intercept)
}

/// Returns slope (per second) and value at a time of the line with the least squares.
#[expect(clippy::cast_precision_loss, reason = "differences of times are small")]
fn line(floats: &Slice<'_, f64>, time: i64) -> (f64, f64) {
    let first = floats.values[0];
    if floats.values[1..].iter().all(|y| *y == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = floats.len() as f64;
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Sum::default(); 4];
    for (t, y) in floats.times.iter().zip(floats.values) {
        let x = (t - time) as f64 / 1000.0;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let [x_sum, y_sum, xy_sum, xx_sum] = [x_sum, y_sum, xy_sum, xx_sum].map(|s| s.value + s.compensation);
    let slope = (xy_sum - x_sum * y_sum / n) / (xx_sum - x_sum * x_sum / n);
    (slope, y_sum / n - slope * x_sum / n)
}

pub(super) fn smoothing(window: &Window<'_>, [factor, trend]: Arguments, notes: &mut Notes) -> Result<Point> {
    for (name, x, short) in [("smoothing", factor, "sf"), ("trend", trend, "tf")] {
        if x <= 0.0 || x >= 1.0 {
            return Err(Error::Execution(format!(
                "invalid {name} factor. Expected: 0 < {short} < 1, got: {x:.6}"
            )));
        }
    }
    if !has_line(window, notes) {
        return Ok(Point::None);
    }
    let values = window.floats.values;
    let (mut before, mut smoothed) = (0.0, values[0]);
    let mut slope = values[1] - values[0];
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (smoothed - before) + (1.0 - trend) * slope;
        }
        let next = factor * value + (1.0 - factor) * (smoothed + slope);
        (before, smoothed) = (smoothed, next);
    }
    Ok(Point::Float(smoothed))
}
