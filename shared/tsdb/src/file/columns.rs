//! Values as integers with a decimal scale, where that is exact for every bit.

use model::{is_stale, stale_nan};

/// The largest scale tried; measured data has hardly anything beyond.
pub(crate) const SCALE_MAX: usize = 9;
/// Integers up to here are exact in a double, so that `i / 10^scale` is one correctly rounded division.
const INT_MAX: f64 = 9_007_199_254_740_992.0;
const POWERS: [f64; SCALE_MAX + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Writes each value as an integer, `None` for a staleness marker, and returns the scale.
///
/// Returns `None`, with `ints` in an undefined state, when a value is not exactly `i / 10^scale`: -0.0, infinities,
/// NaNs that are no marker, and most true floats.
pub(crate) fn to_decimal(values: &[f64], ints: &mut Vec<Option<i64>>) -> Option<usize> {
    let mut scale = 0;
    // Most rows are integers, and are gone through once.
    'scales: loop {
        ints.clear();
        for value in values {
            let int = scaled(*value, scale);
            if int.is_none() && !is_stale(*value) {
                // Not found either when it is exact at a lower scale and too large at this one.
                scale = (scale + 1..=SCALE_MAX).find(|s| scaled(*value, *s).is_some())?;
                continue 'scales;
            }
            ints.push(int);
        }
        return Some(scale);
    }
}

/// Reads back one value that [`to_decimal`] wrote; the scale must be at most [`SCALE_MAX`].
#[expect(clippy::cast_precision_loss, reason = "integers beyond 2^53 are never written")]
pub(crate) fn from_decimal(int: Option<i64>, scale: usize) -> f64 {
    int.map_or_else(stale_nan, |i| i as f64 / POWERS[scale])
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn scaled(value: f64, scale: usize) -> Option<i64> {
    let product = value * POWERS[scale];
    if product.abs() > INT_MAX {
        return None;
    }
    // Rounded half away from zero, without a call.
    let whole = product as i64;
    let int = whole + ((product - whole as f64) * 2.0) as i64;
    (from_decimal(Some(int), scale).to_bits() == value.to_bits()).then_some(int)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(values: &[f64]) -> Option<(usize, Vec<Option<i64>>)> {
        let mut ints = Vec::new();
        to_decimal(values, &mut ints).map(|scale| (scale, ints))
    }

    #[test]
    fn decimals_are_found_where_they_are_exact() {
        let some = |ints: &[i64]| ints.iter().map(|i| Some(*i)).collect::<Vec<_>>();
        for (values, want) in [
            (vec![], Some((0, vec![]))),
            (vec![0.0, 1.0, -7.0], Some((0, some(&[0, 1, -7])))),
            (vec![0.5, 2.0], Some((1, some(&[5, 20])))),
            (vec![1.0, 0.1, 0.25], Some((2, some(&[100, 10, 25])))),
            (vec![0.1 + 0.2], None),
            (vec![1e-9], Some((9, some(&[1])))),
            (vec![1e-10], None),
            (vec![9_007_199_254_740_992.0], Some((0, some(&[9_007_199_254_740_992])))),
            (vec![9_007_199_254_740_994.0], None),
            (vec![9_007_199_254_740_992.0, 0.5], None),
            (vec![stale_nan(), 3.0], Some((0, vec![None, Some(3)]))),
            (vec![stale_nan()], Some((0, vec![None]))),
            (vec![-0.0], None),
            (vec![f64::NAN], None),
            (vec![f64::INFINITY], None),
            (vec![f64::NEG_INFINITY], None),
            (vec![f64::from_bits(0x7ff8_0000_0000_0001)], None),
            (vec![1_700_000_000.123], Some((3, some(&[1_700_000_000_123])))),
        ] {
            assert_eq!(decimal(&values), want, "{values:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_comes_back_bit_for_bit(bits: Vec<u64>, ints: Vec<i32>, scale in 0_i32..9) {
            let decimals = ints.iter().map(|i| f64::from(*i) / 10_f64.powi(scale));
            for values in [bits.iter().map(|b| f64::from_bits(*b)).collect::<Vec<f64>>(), decimals.collect()] {
                if let Some((scale, ints)) = decimal(&values) {
                    let back: Vec<u64> = ints.iter().map(|i| from_decimal(*i, scale).to_bits()).collect();
                    proptest::prop_assert_eq!(back, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
                }
            }
        }

        #[test]
        fn decimals_are_never_missed(ints: Vec<i32>, scale in 0_i32..=9) {
            let values: Vec<f64> = ints.iter().map(|i| f64::from(*i) / 10_f64.powi(scale)).collect();
            proptest::prop_assert!(decimal(&values).is_some());
        }
    }
}
