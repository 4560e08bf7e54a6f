//! Compression of a streamed body, chosen as Prometheus chooses it: by the order in which the client names encodings.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use tonic::Status;

/// How hard it is tried.
const LEVEL: Compression = Compression::new(2);

/// What is done with the pieces of a body.
#[derive(Debug)]
pub(super) enum Packing {
    /// Nothing.
    Plain,
    Gzip(GzEncoder<Vec<u8>>),
    /// In the format of zlib, as the standard has it.
    Deflate(ZlibEncoder<Vec<u8>>),
}

impl Packing {
    /// Takes the first encoding of the header that there is; qualities are passed over.
    ///
    /// Packing is fast rather than tight, since the reader waits for it. The next level above the fastest saves a quarter,
    /// and those above it little more.
    pub(super) fn from_accept(header: &str) -> Self {
        let named = header.split(',').find_map(|name| match name.trim() {
            "gzip" => Some(Self::Gzip(GzEncoder::new(Vec::new(), LEVEL))),
            "deflate" => Some(Self::Deflate(ZlibEncoder::new(Vec::new(), LEVEL))),
            _ => None,
        });
        named.unwrap_or(Self::Plain)
    }

    /// The Content-Encoding, where there is one.
    pub(super) fn name(&self) -> Option<HeaderValue> {
        match self {
            Self::Plain => None,
            Self::Gzip(_) => Some(HeaderValue::from_static("gzip")),
            Self::Deflate(_) => Some(HeaderValue::from_static("deflate")),
        }
    }

    /// Packs a piece off the async threads; what comes back may be empty until the last one.
    pub(super) async fn pack(&mut self, plain: Vec<u8>, is_last: bool) -> Result<Bytes, Status> {
        if matches!(self, Self::Plain) {
            return Ok(plain.into());
        }
        let mut packing = std::mem::replace(self, Self::Plain);
        let packed = tokio::task::spawn_blocking(move || {
            let packed = packing.pack_here(&plain, is_last);
            (packing, packed)
        });
        let (packing, packed) = packed.await.map_err(|e| Status::internal(format!("compress: {e}")))?;
        *self = packing;
        packed.map(Bytes::from).map_err(|e| Status::internal(format!("compress: {e}")))
    }

    fn pack_here(&mut self, plain: &[u8], is_last: bool) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(plain.to_vec()),
            Self::Gzip(encoder) => {
                encoder.write_all(plain)?;
                if is_last {
                    encoder.try_finish()?;
                }
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Deflate(encoder) => {
                encoder.write_all(plain)?;
                if is_last {
                    encoder.try_finish()?;
                }
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_first_encoding_of_the_header_is_taken() {
        for (header, expected) in [
            ("", None),
            ("identity, br", None),
            ("gzip", Some("gzip")),
            ("br, deflate , gzip", Some("deflate")),
            ("gzip, deflate", Some("gzip")),
            // As in the reference, an encoding with a quality is none that it knows.
            ("gzip;q=1.0, deflate", Some("deflate")),
        ] {
            let name = Packing::from_accept(header).name();
            assert_eq!(name.as_ref().map(|v| v.to_str().expect("text")), expected, "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_was_packed_in_pieces_is_read_as_one() {
        let pieces: Vec<Vec<u8>> = (0..50_u8).map(|i| vec![i; 10_000]).collect();
        for header in ["gzip", "deflate", ""] {
            let (mut packing, mut packed) = (Packing::from_accept(header), Vec::new());
            for (i, piece) in pieces.iter().enumerate() {
                packed.extend(packing.pack(piece.clone(), i == 49).await.expect("packed"));
            }
            let mut read = Vec::new();
            let unpacked = match header {
                "gzip" => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut read),
                "deflate" => flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut read),
                _ => (&packed[..]).read_to_end(&mut read),
            };
            unpacked.expect("whole");
            assert!(read == pieces.concat(), "{header:?}");
        }
    }
}
