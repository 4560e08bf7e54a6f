//! Chunks are read back by a reader that is written apart from the writer; that Prometheus reads them as well is a
//! story of the integration tests.

use model::{Labels, stale_nan};
use proptest::prelude::*;

use super::*;

/// Reads bits.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bit(&mut self) -> bool {
        let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
        self.at += 1;
        bit == 1
    }

    fn bits(&mut self, width: u32) -> u64 {
        (0..width).fold(0, |value, _| value << 1 | u64::from(self.bit()))
    }

    /// Two's complement, but for the one value that stands for the largest.
    fn signed_bits(&mut self, width: u32) -> i64 {
        let raw = self.bits(width);
        if width < 64 && raw > 1 << (width - 1) { raw as i64 - (1 << width) } else { raw as i64 }
    }

    fn uvarint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.bits(8);
            value |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn ones(&mut self, most: u32) -> u32 {
        (0..most).take_while(|_| self.bit()).count() as u32
    }

    fn sized(&mut self) -> Option<u32> {
        match self.ones(8) {
            0 => None,
            n => Some([3, 6, 9, 12, 18, 25, 56, 64][n as usize - 1]),
        }
    }

    fn signed(&mut self) -> i64 {
        self.sized().map_or(0, |width| self.signed_bits(width))
    }

    fn unsigned(&mut self) -> u64 {
        self.sized().map_or(0, |width| self.bits(width))
    }

    fn xor(&mut self, before: &mut (u64, u32, u32)) -> f64 {
        if self.bit() {
            if self.bit() {
                let leading = self.bits(5) as u32;
                let width = match self.bits(6) as u32 {
                    0 => 64,
                    width => width,
                };
                (before.1, before.2) = (width, 64 - leading - width);
            }
            before.0 ^= self.bits(before.1) << before.2;
        }
        f64::from_bits(before.0)
    }
}

/// The samples of a chunk of floats.
fn floats(chunk: &pb::Chunk) -> Vec<(i64, u64)> {
    let mut reader = Reader { bytes: &chunk.data, at: 0 };
    let count = reader.bits(16);
    let zigzag = reader.uvarint();
    let mut t = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    let mut value = (reader.bits(64), 0, 0);
    let mut all = vec![(t, value.0)];
    let mut delta = 0;
    for i in 1..count {
        delta = match i {
            1 => reader.uvarint() as i64,
            _ => {
                delta
                    + match reader.ones(4) {
                        0 => 0,
                        n => reader.signed_bits([14, 17, 20, 64][n as usize - 1]),
                    }
            }
        };
        t += delta;
        all.push((t, reader.xor(&mut value).to_bits()));
    }
    all
}

/// A histogram: time, count, bits of the sum, deltas of buckets.
type Read = (i64, u64, u64, Vec<i64>);

/// The hint flags and the samples of a chunk of integer histograms.
fn integers(chunk: &pb::Chunk) -> (u64, Vec<Read>) {
    let mut reader = Reader { bytes: &chunk.data, at: 0 };
    let (samples, flags) = (reader.bits(16), reader.bits(8));
    if reader.bits(8) == 255 {
        reader.bits(64);
    }
    let schema = reader.signed();
    let mut buckets = 0;
    for _ in 0..2 {
        for _ in 0..reader.unsigned() {
            buckets += reader.unsigned();
            reader.signed();
        }
    }
    if schema == -53 {
        for _ in 0..reader.unsigned() {
            assert_eq!(reader.unsigned(), 0, "the long form");
            reader.bits(64);
        }
    }
    let mut t = reader.signed();
    let (mut count, mut zero) = (reader.unsigned() as i64, reader.unsigned() as i64);
    let mut sum = (reader.bits(64), 0, 0);
    let mut deltas: Vec<i64> = (0..buckets).map(|_| reader.signed()).collect();
    let mut all = vec![(t, count as u64, sum.0, deltas.clone())];
    let (mut t_delta, mut count_delta, mut zero_delta) = (0, 0, 0);
    let mut changes = vec![0; deltas.len()];
    for _ in 1..samples {
        t_delta += reader.signed();
        count_delta += reader.signed();
        zero_delta += reader.signed();
        (t, count, zero) = (t + t_delta, count + count_delta, zero + zero_delta);
        reader.xor(&mut sum);
        for (delta, change) in deltas.iter_mut().zip(&mut changes) {
            *change += reader.signed();
            *delta += *change;
        }
        all.push((t, count as u64, sum.0, deltas.clone()));
    }
    (flags, all)
}

fn chunks(series: &SeriesOut) -> Vec<pb::Chunk> {
    let mut open = Chunks::default();
    let mut all: Vec<pb::Chunk> = open.add(series).collect();
    all.extend(open.finish());
    all
}

fn series(floats: Vec<(i64, f64)>, histograms: Vec<(i64, Histogram)>) -> SeriesOut {
    SeriesOut {
        labels: Labels::from_pairs([("__name__", "a")]),
        floats: floats.into_iter().map(|(t, x)| (Timestamp(t), x)).collect(),
        histograms: histograms.into_iter().map(|(t, h)| (Timestamp(t), h)).collect(),
        ..SeriesOut::default()
    }
}

proptest! {
    #[test]
    fn floats_come_back_bit_for_bit(
        start in -1_i64 << 40..1 << 44,
        steps in prop::collection::vec(
            (prop_oneof![Just(15_000_i64), 1_i64..9_000_000, 1_i64..1 << 40], prop_oneof![
                Just(1.0), any::<f64>(), Just(stale_nan()), (0_i32..1_000).prop_map(f64::from)
            ]),
            1..400,
        ),
    ) {
        let mut t = start;
        let samples: Vec<(i64, f64)> = steps.into_iter().map(|(step, x)| { t += step; (t, x) }).collect();
        let all: Vec<pb::Chunk> = chunks(&series(samples.clone(), Vec::new()));
        prop_assert_eq!(all.len(), samples.len().div_ceil(120));
        for (chunk, want) in all.iter().zip(samples.chunks(120)) {
            let want: Vec<(i64, u64)> = want.iter().map(|(t, x)| (*t, x.to_bits())).collect();
            prop_assert_eq!((chunk.min_time_ms, chunk.max_time_ms), (want[0].0, want[want.len() - 1].0));
            prop_assert_eq!(chunk.r#type(), Encoding::Xor);
            prop_assert_eq!(floats(chunk), want);
        }
    }
}

/// A histogram with two positive buckets.
fn histogram(populations: [i64; 2], hint: CounterResetHint) -> Histogram {
    let count = populations.iter().sum::<i64>().cast_unsigned();
    Histogram::Integer(IntegerHistogram {
        counter_reset_hint: hint,
        schema: 1,
        zero_threshold: 0.001,
        count,
        sum: count as f64 * 1.5,
        positive_spans: vec![Span { offset: -1, length: 1 }, Span { offset: 3, length: 1 }],
        positive_deltas: vec![populations[0], populations[1] - populations[0]],
        ..IntegerHistogram::default()
    })
}

#[test]
fn histograms_are_cut_where_a_reader_would_go_wrong() {
    use CounterResetHint::{Gauge, Unknown};
    let stale = Histogram::Integer(IntegerHistogram { sum: stale_nan(), ..IntegerHistogram::default() });
    let samples = vec![
        (1_000, histogram([1, 2], Unknown)),
        (2_000, histogram([1, 5], Unknown)),
        (3_500, histogram([900, 70_000], Unknown)),
        // One bucket fell.
        (4_000, histogram([899, 90_000], Unknown)),
        (5_000, stale),
        (6_000, histogram([899, 90_000], Unknown)),
        (7_000, histogram([1, 1], Gauge)),
        (8_000, histogram([0, 0], Gauge)),
    ];
    let all: Vec<pb::Chunk> = chunks(&series(vec![(6_500, 1.0)], samples));
    let times: Vec<(i64, i64)> = all.iter().map(|c| (c.min_time_ms, c.max_time_ms)).collect();
    assert_eq!(
        times,
        [(1_000, 3_500), (4_000, 4_000), (5_000, 5_000), (6_000, 6_000), (6_500, 6_500), (7_000, 8_000)]
    );
    let sum = |x: f64| x.to_bits();
    assert_eq!(
        integers(&all[0]),
        (
            0,
            vec![
                (1_000, 3, sum(4.5), vec![1, 1]),
                (2_000, 6, sum(9.0), vec![1, 4]),
                (3_500, 70_900, sum(106_350.0), vec![900, 69_100]),
            ]
        )
    );
    assert_eq!(integers(&all[1]).0, 0b1000_0000, "a reset");
    assert_eq!(integers(&all[2]).1, [(5_000, 0, stale_nan().to_bits(), vec![])]);
    assert_eq!((all[4].r#type(), floats(&all[4])), (Encoding::Xor, vec![(6_500, 1.0_f64.to_bits())]));
    let (flags, gauges) = integers(&all[5]);
    assert_eq!((flags, gauges.len()), (0b1100_0000, 2));
}

#[test]
fn thresholds_that_are_powers_of_two_take_a_byte() {
    // Prometheus's default is 2^-128.
    assert_eq!(power_of_two(2.0_f64.powi(-128)), Some(243 - 127));
    assert_eq!(power_of_two(0.5), Some(243));
    assert_eq!(
        (power_of_two(0.001), power_of_two(2.0_f64.powi(-250)), power_of_two(4_096.0)),
        (None, None, None)
    );
}
