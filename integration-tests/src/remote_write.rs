//! Remote write as a client.

use remote_protocol::{SeriesOut, Version, compress, encode_v1, encode_v2};

use crate::http::{Http, Reply};

/// Sends one request of version 1.0; `None` when there is no answer, so that nobody knows whether it was stored.
///
/// # Panics
/// When the request is too large to be one.
#[must_use]
pub fn write(server: &Http, series: &[SeriesOut]) -> Option<Reply> {
    let message = encode_v1(series, &[]);
    write_body(server, Version::V1, &compress(&message).expect("the stories' requests are small"))
}

/// Sends one request of version 2.0.
///
/// # Panics
/// When the request is too large to be one.
#[must_use]
pub fn write_v2(server: &Http, series: &[SeriesOut]) -> Option<Reply> {
    let message = encode_v2(series);
    write_body(server, Version::V2, &compress(&message).expect("the stories' requests are small"))
}

/// Sends a body as it stands.
#[must_use]
pub fn write_body(server: &Http, version: Version, body: &[u8]) -> Option<Reply> {
    let number = match version {
        Version::V1 => "0.1.0",
        Version::V2 => "2.0.0",
    };
    let headers = [
        ("Content-Type", version.content_type()),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", number),
    ];
    server.try_post("/api/v1/write", &headers, body)
}
