//! The bytes of a segment: a header, then records.
//!
//! Header, all numbers little endian: magic, version, flags, two bytes of zero, log (16), seq (8), nonce (16), floor
//! (8), acknowledged (8), payload length (8), CRC-32C of all of that (4). A record: length (4), CRC-32C of the body
//! (4), body.

use ulid::Ulid;

const MAGIC: [u8; 4] = *b"TRLS";
const VERSION: u8 = 1;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 76;
/// Bytes in front of a record's body.
pub(crate) const RECORD_HEAD_BYTES: usize = 8;
/// A record's body is never longer.
pub(crate) const RECORD_BYTES_MAX: usize = 256 << 20;

/// What a segment is, besides a carrier of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Carries records.
    Records,
    /// Segment 0.
    Birth,
    /// Ends the log.
    Seal,
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) role: Role,
    pub(crate) log: Ulid,
    pub(crate) seq: u64,
    /// Random, of the writer: tells one's own segment from another's.
    pub(crate) nonce: u128,
    /// The lowest segment that is still needed.
    pub(crate) floor: u64,
    /// Every segment through this one was acknowledged when this was written.
    pub(crate) acknowledged: u64,
    /// Bytes of all records.
    pub(crate) payload_bytes: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let role = match self.role {
            Role::Records => 0,
            Role::Birth => 1,
            Role::Seal => 2,
        };
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = role;
        out[8..24].copy_from_slice(&self.log.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.seq.to_le_bytes());
        out[32..48].copy_from_slice(&self.nonce.to_le_bytes());
        out[48..56].copy_from_slice(&self.floor.to_le_bytes());
        out[56..64].copy_from_slice(&self.acknowledged.to_le_bytes());
        out[64..72].copy_from_slice(&self.payload_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[..72]);
        out[72..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; `None` when the bytes are not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u128_at = |at: usize| u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"));
        let crc = u32::from_le_bytes(bytes[72..].try_into().expect("four bytes"));
        if bytes[..4] != MAGIC || bytes[4] != VERSION || crc32c::crc32c(&bytes[..72]) != crc {
            return None;
        }
        let role = match bytes[5] {
            0 => Role::Records,
            1 => Role::Birth,
            2 => Role::Seal,
            _ => return None,
        };
        Some(Self {
            role,
            log: Ulid(u128_at(8)),
            seq: u64_at(24),
            nonce: u128_at(32),
            floor: u64_at(48),
            acknowledged: u64_at(56),
            payload_bytes: u64_at(64),
        })
    }
}

/// Writes one record; `body` adds its bytes.
pub(crate) fn put_record(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let head = out.len();
    out.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
    body(out);
    let length = out.len() - head - RECORD_HEAD_BYTES;
    let length = u32::try_from(length).expect("a group's records are far below 4 GiB");
    let crc = crc32c::crc32c(&out[head + RECORD_HEAD_BYTES..]);
    out[head..head + 4].copy_from_slice(&length.to_le_bytes());
    out[head + 4..head + RECORD_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// One record of a payload, or the bytes of a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawRecord<'a> {
    Intact(&'a [u8]),
    /// The body does not match its CRC, or the rest of the payload cannot be cut into records.
    Damaged,
}

/// Cuts a payload into its records.
#[derive(Debug)]
pub(crate) struct RawRecords<'a> {
    rest: &'a [u8],
}

impl<'a> RawRecords<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = RawRecord<'a>;

    fn next(&mut self) -> Option<RawRecord<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let cut = self.rest.split_first_chunk::<RECORD_HEAD_BYTES>().and_then(|(head, rest)| {
            let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
            let crc = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
            let (body, rest) = rest.split_at_checked(length).filter(|_| length <= RECORD_BYTES_MAX)?;
            Some((body, crc, rest))
        });
        let Some((body, crc, rest)) = cut else {
            // The length itself is damaged: where the next record begins cannot be known.
            self.rest = &[];
            return Some(RawRecord::Damaged);
        };
        self.rest = rest;
        Some(if crc32c::crc32c(body) == crc { RawRecord::Intact(body) } else { RawRecord::Damaged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            role: Role::Records,
            log: Ulid(7 << 100 | 9),
            seq: 42,
            nonce: u128::MAX - 3,
            floor: 12,
            acknowledged: 41,
            payload_bytes: 1 << 33,
        }
    }

    #[test]
    fn headers_come_back_and_every_flipped_bit_is_seen() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Some(header()));
        assert_eq!(Header::decode(&bytes[..HEADER_BYTES - 1]), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_record_leaves_those_around_it() {
        let mut payload = Vec::new();
        for body in [&b"first"[..], b"second", b"", b"fourth"] {
            put_record(&mut payload, |out| out.extend_from_slice(body));
        }
        let intact = |b: &'static [u8]| RawRecord::Intact(b);
        let all = [intact(b"first"), intact(b"second"), intact(b""), intact(b"fourth")];
        assert_eq!(RawRecords::new(&payload).collect::<Vec<_>>(), all);

        let second_body = 2 * RECORD_HEAD_BYTES + 5;
        let mut damaged = payload.clone();
        damaged[second_body] ^= 1;
        let wanted = [all[0], RawRecord::Damaged, all[2], all[3]];
        assert_eq!(RawRecords::new(&damaged).collect::<Vec<_>>(), wanted);

        let second_length = RECORD_HEAD_BYTES + 5;
        let mut damaged = payload.clone();
        damaged[second_length + 3] = 0x7f;
        assert_eq!(RawRecords::new(&damaged).collect::<Vec<_>>(), [all[0], RawRecord::Damaged]);
    }
}
