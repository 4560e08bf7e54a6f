//! Remote write 1.0 as a client.

use remote_protocol::{SeriesOut, compress, encode_v1};

use crate::http::{Http, Reply};

/// Sends one request; `None` when there is no answer, so that nobody knows whether it was stored.
///
/// # Panics
/// When the request is too large to be one.
#[must_use]
pub fn write(server: &Http, series: &[SeriesOut]) -> Option<Reply> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let body = compress(&encode_v1(series, &[])).expect("the stories' requests are small");
    server.try_post("/api/v1/write", &headers, &body)
}
