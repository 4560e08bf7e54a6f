//! The frame: one snappy block.

use crate::error::{Error, Result};

/// The largest body, before and after decompression: 32 MiB, as in Prometheus.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// What a byte of a block becomes at most: the densest element copies 64 bytes and takes three.
const EXPANSION_MAX: usize = 22;

/// Decompresses a body. The size it declares is checked before anything is allocated: nothing is that such a body cannot
/// become.
///
/// # Errors
/// When the body is too large before or after, or no snappy block.
pub fn decompress(body: &[u8]) -> Result<Vec<u8>> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::BodyTooLarge(body.len()));
    }
    let snappy = |e: snap::Error| match e {
        snap::Error::TooBig { given, .. } => {
            Error::DecodedTooLarge(usize::try_from(given).unwrap_or(usize::MAX))
        }
        e => Error::Snappy(e.to_string()),
    };
    let size = snap::raw::decompress_len(body).map_err(snappy)?;
    if size > BODY_BYTES_MAX {
        return Err(Error::DecodedTooLarge(size));
    }
    if size > EXPANSION_MAX * body.len() {
        return Err(Error::Snappy(format!("corrupt input: {size} bytes out of {}", body.len())));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(snappy)
}

/// Compresses a message.
///
/// # Errors
/// When the message is larger than [`BODY_BYTES_MAX`], which no receiver would take.
pub fn compress(message: &[u8]) -> Result<Vec<u8>> {
    if message.len() > BODY_BYTES_MAX {
        return Err(Error::DecodedTooLarge(message.len()));
    }
    snap::raw::Encoder::new().compress_vec(message).map_err(|e| Error::Snappy(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        for message in [&b""[..], b"a", &[7; 100_000]] {
            assert_eq!(decompress(&compress(message).unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn sizes_are_bounded_before_decompression() {
        assert_eq!(
            decompress(&vec![0; BODY_BYTES_MAX + 1]),
            Err(Error::BodyTooLarge(BODY_BYTES_MAX + 1)),
            "before"
        );
        // A block starts with its decoded size as a varint: 2^25 + 1, and 2^33.
        assert_eq!(
            decompress(&[0x81, 0x80, 0x80, 0x10]),
            Err(Error::DecodedTooLarge(BODY_BYTES_MAX + 1)),
            "after"
        );
        assert_eq!(
            decompress(&[0x80, 0x80, 0x80, 0x80, 0x20]).map_err(|e| e.kind()),
            Err(fault::Kind::Limit)
        );
        assert_eq!(compress(&vec![0; BODY_BYTES_MAX + 1]), Err(Error::DecodedTooLarge(BODY_BYTES_MAX + 1)));
        // 2^25 out of six bytes.
        let claim = [0x80, 0x80, 0x80, 0x10, 0, 0];
        let refusal = "corrupt input: 33554432 bytes out of 6".to_owned();
        assert_eq!(decompress(&claim), Err(Error::Snappy(refusal)));
        let largest = compress(&vec![0; BODY_BYTES_MAX]).unwrap();
        assert_eq!(decompress(&largest).unwrap().len(), BODY_BYTES_MAX);
    }

    #[test]
    fn what_is_not_snappy_is_refused() {
        for body in [&b""[..], b"\x05abc", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(decompress(body).map_err(|e| e.kind()), Err(fault::Kind::Invalid), "{body:?}");
        }
    }
}
