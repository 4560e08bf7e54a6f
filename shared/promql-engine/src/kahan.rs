//! Sums and means that lose little precision: Neumaier's variant of Kahan summation, as Prometheus uses it.

use crate::faults::or_fault;

/// A running sum with the part that rounding took from it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Sum {
    pub(crate) value: f64,
    pub(crate) compensation: f64,
}

impl Sum {
    pub(crate) const fn new(value: f64) -> Self {
        Self { value, compensation: 0.0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, x: f64) {
        let total = self.value + x;
        if or_fault!(Compensation, total.is_infinite(), true) {
            self.compensation = 0.0;
        } else if self.value.abs() >= x.abs() {
            self.compensation += (self.value - total) + x;
        } else {
            self.compensation += (x - total) + self.value;
        }
        self.value = total;
    }

    pub(crate) fn add_sum(&mut self, other: Self) {
        self.add(other.value);
        self.compensation += other.compensation;
    }

    pub(crate) fn scale(&mut self, factor: f64) {
        self.value *= factor;
        self.compensation *= factor;
    }

    pub(crate) fn divide(&mut self, divisor: f64) {
        self.value /= divisor;
        self.compensation /= divisor;
    }

    pub(crate) fn total(self) -> f64 {
        // An infinite or NaN sum has nothing to be compensated.
        if self.value.is_finite() { self.value + self.compensation } else { self.value }
    }
}

/// A running mean: the sum divided in the end, or, once the sum would overflow, the mean itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mean {
    count: f64,
    sum: Sum,
    is_incremental: bool,
}

impl Mean {
    pub(crate) const fn new(first: f64) -> Self {
        Self { count: 1.0, sum: Sum::new(first), is_incremental: false }
    }

    pub(crate) fn add(&mut self, x: f64) {
        self.count += 1.0;
        if !self.is_incremental {
            let mut sum = self.sum;
            sum.add(x);
            if !sum.value.is_infinite() {
                self.sum = sum;
                return;
            }
            self.is_incremental = true;
            self.sum.divide(self.count - 1.0);
        }
        self.sum.scale((self.count - 1.0) / self.count);
        self.sum.add(x / self.count);
    }

    /// Adds the values of another mean.
    pub(crate) fn join(&mut self, mut other: Self) {
        let count = self.count + other.count;
        if !self.is_incremental && !other.is_incremental {
            let mut sum = self.sum;
            sum.add_sum(other.sum);
            if !sum.value.is_infinite() {
                *self = Self { count, sum, is_incremental: false };
                return;
            }
        }
        for mean in [&mut *self, &mut other] {
            if !mean.is_incremental {
                mean.sum.divide(mean.count);
            }
            mean.sum.scale(mean.count / count);
        }
        self.sum.add_sum(other.sum);
        *self = Self { count, sum: self.sum, is_incremental: true };
    }

    /// Count, sum, compensation, and 1 where the sum is a mean already.
    pub(crate) fn to_numbers(self) -> [f64; 4] {
        let Sum { value, compensation } = self.sum;
        [self.count, value, compensation, f64::from(u8::from(self.is_incremental))]
    }

    pub(crate) fn from_numbers([count, value, compensation, is_incremental]: [f64; 4]) -> Self {
        Self { count, sum: Sum { value, compensation }, is_incremental: is_incremental == 1.0 }
    }

    pub(crate) fn mean(self) -> f64 {
        let mut sum = self.sum;
        if !self.is_incremental {
            sum.divide(self.count);
        }
        sum.total()
    }
}

/// A running variance (Welford's method).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Variance {
    count: f64,
    mean: Sum,
    squares: Sum,
}

impl Variance {
    pub(crate) fn add(&mut self, x: f64) {
        self.count += 1.0;
        let delta = x - (self.mean.value + self.mean.compensation);
        self.mean.add(delta / self.count);
        self.squares.add(delta * (x - (self.mean.value + self.mean.compensation)));
    }

    /// Adds the values of another variance (Chan's method).
    pub(crate) fn join(&mut self, other: Self) {
        let count = self.count + other.count;
        let delta = (other.mean.value + other.mean.compensation) - (self.mean.value + self.mean.compensation);
        self.mean.add(delta * (other.count / count));
        self.squares.add_sum(other.squares);
        self.squares.add(delta * delta * (self.count * other.count / count));
        self.count = count;
    }

    /// Count, then mean and squares, each with its compensation.
    pub(crate) fn to_numbers(self) -> [f64; 5] {
        let Self { count, mean, squares } = self;
        [count, mean.value, mean.compensation, squares.value, squares.compensation]
    }

    pub(crate) fn from_numbers([count, mean, lost_mean, squares, lost_squares]: [f64; 5]) -> Self {
        Self {
            count,
            mean: Sum { value: mean, compensation: lost_mean },
            squares: Sum { value: squares, compensation: lost_squares },
        }
    }

    pub(crate) fn variance(self) -> f64 {
        (self.squares.value + self.squares.compensation) / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut s = Sum::default();
        values.iter().for_each(|x| s.add(*x));
        s.total()
    }

    fn mean(values: &[f64]) -> f64 {
        let mut m = Mean::new(values[0]);
        values[1..].iter().for_each(|x| m.add(*x));
        m.mean()
    }

    #[test]
    fn small_values_survive_large_ones() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(mean(&[1.0, 1e100, 1.0, -1e100]), 0.5);
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let big = f64::MAX / 1.5;
        assert!((mean(&[big; 3]) / big - 1.0).abs() < 1e-12);
        assert_eq!(mean(&[f64::INFINITY, 0.0, f64::INFINITY]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    /// Cut in two at any place, the whole comes to the same.
    #[test]
    fn parts_are_joined() {
        let cases: [&[f64]; 6] = [
            &[1.0, 1e100, 1.0, -1e100],
            &[0.1, 0.2, 0.3, 0.4, 1e6],
            &[f64::INFINITY, 1.0, 2.0],
            &[1.0, f64::INFINITY, f64::NEG_INFINITY],
            &[f64::NAN, 1.0],
            &[7.0, 7.0, 7.0],
        ];
        let is_close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a / b - 1.0).abs() < 1e-12;
        for values in cases {
            for cut in 1..values.len() {
                let (mut sums, mut means) =
                    ([Sum::default(); 2], [Mean::new(values[0]), Mean::new(values[cut])]);
                let (mut variances, mut whole) = ([Variance::default(); 2], Variance::default());
                for (part, values) in [&values[..cut], &values[cut..]].into_iter().enumerate() {
                    values.iter().for_each(|x| sums[part].add(*x));
                    values[1..].iter().for_each(|x| means[part].add(*x));
                    values.iter().for_each(|x| variances[part].add(*x));
                    values.iter().for_each(|x| whole.add(*x));
                }
                sums[0].add_sum(sums[1]);
                assert!(is_close(sums[0].total(), sum(values)), "{values:?} at {cut}");
                means[0].join(Mean::from_numbers(means[1].to_numbers()));
                assert!(is_close(means[0].mean(), mean(values)), "{values:?} at {cut}");
                variances[0].join(Variance::from_numbers(variances[1].to_numbers()));
                let (joined, whole) = (variances[0].variance(), whole.variance());
                assert!(is_close(joined, whole), "{values:?} at {cut}: {joined}, not {whole}");
            }
        }
    }

    #[test]
    fn variance_follows_the_definition() {
        let mut v = Variance::default();
        for x in [0.0, 8.0, 8.0, 2.0, 3.0] {
            v.add(x);
        }
        // Mean 4.2; squares 17.64 + 14.44 + 14.44 + 4.84 + 1.44 = 52.8, by 5.
        assert!((v.variance() - 10.56).abs() < 1e-12);
    }
}
