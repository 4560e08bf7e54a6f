use std::io::Write as _;

use proptest::prelude::*;

use super::*;

/// How a record is packed.
#[derive(Debug, Clone, Copy)]
enum Packing {
    None,
    Snappy,
    Zstd,
}

/// Writes records as Prometheus does: a piece a page at most, a new page where not even a header fits.
fn segment(records: &[(Packing, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (packing, record) in records {
        let (flag, record) = match packing {
            Packing::None => (0, record.clone()),
            Packing::Snappy => (SNAPPY, snap::raw::Encoder::new().compress_vec(record).expect("small")),
            Packing::Zstd => (ZSTD, zstd::stream::encode_all(&record[..], 1).expect("packs")),
        };
        let mut rest = &record[..];
        let mut is_first = true;
        while is_first || !rest.is_empty() {
            let mut left = PAGE_BYTES - bytes.len() % PAGE_BYTES;
            if left <= HEADER_BYTES {
                bytes.resize(bytes.len() + left, 0);
                left = PAGE_BYTES;
            }
            let (piece, behind) = rest.split_at(rest.len().min(left - HEADER_BYTES));
            let kind = match (is_first, behind.is_empty()) {
                (true, true) => piece::WHOLE,
                (true, false) => piece::FIRST,
                (false, false) => piece::MIDDLE,
                (false, true) => piece::LAST,
            };
            bytes.push(kind | flag);
            bytes.extend(u16::try_from(piece.len()).expect("shorter than a page").to_be_bytes());
            bytes.extend(crc32c::crc32c(piece).to_be_bytes());
            bytes.extend(piece);
            (rest, is_first) = (behind, false);
        }
    }
    bytes
}

fn read_back(bytes: &[u8], end: End) -> (Vec<Vec<u8>>, Result<()>) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    let mut records = Vec::new();
    let read = read(file.path(), end, &AtomicU64::new(0), &mut |record| {
        records.push(record.to_vec());
        Ok(())
    });
    (records, read)
}

fn some_records() -> Vec<(Packing, Vec<u8>)> {
    let packings = [Packing::None, Packing::Snappy, Packing::Zstd];
    let lengths = [1, 10, PAGE_BYTES - 40, 3, 3 * PAGE_BYTES, 100, 7, 2 * PAGE_BYTES - 900, 5];
    // Nothing that a packer finds anything in.
    let byte = |i: usize, n: usize| {
        let mixed = ((i << 32 | n) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()[0]
    };
    let record = |(i, length): (usize, &usize)| (packings[i % 3], (0..*length).map(|n| byte(i, n)).collect());
    lengths.iter().enumerate().map(record).collect()
}

#[test]
fn records_come_back_however_they_are_packed_and_cut() {
    let records = some_records();
    let bytes = segment(&records);
    assert!(bytes.len() > 3 * PAGE_BYTES);
    let want: Vec<Vec<u8>> = records.iter().map(|(_, r)| r.clone()).collect();
    for end in [End::Whole, End::Torn] {
        let (got, read) = read_back(&bytes, end);
        read.expect("whole");
        assert_eq!(got, want);
    }
    // A segment may be longer than what stands in it.
    let (got, read) =
        read_back(&[&bytes[..], &vec![0; PAGE_BYTES - bytes.len() % PAGE_BYTES]].concat(), End::Whole);
    read.expect("whole");
    assert_eq!(got, want);
}

#[test]
fn a_segment_that_was_cut_off_is_read_up_to_there() {
    let records = some_records();
    let bytes = segment(&records);
    for length in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
        let (got, read) = read_back(&bytes[..length], End::Torn);
        read.unwrap_or_else(|e| panic!("{length}: {e}"));
        assert!(got.len() < records.len());
        assert!(got.iter().zip(&records).all(|(got, (_, want))| got == want), "{length}");
    }
    let (_, read) = read_back(&bytes[..bytes.len() - 1], End::Whole);
    assert!(matches!(read, Err(Error::Damaged { .. })), "only the last segment may be");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_never_gives_another_record(place in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let records = some_records();
        let mut bytes = segment(&records);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let (got, read) = read_back(&bytes, End::Torn);
        // Every record in front of the damage, none behind it; flags of packing are in no checksum, but in the packing.
        prop_assert!(got.len() <= records.len());
        let is_all = got.len() == records.len();
        for (got, (_, want)) in got.iter().zip(&records) {
            prop_assert!(got == want || read.is_ok(), "{place}");
        }
        prop_assert!(read.is_err() || !is_all || bytes[place] & KIND_MASK != 0);
    }
}
