//! Asks a peer how it is, by the gRPC health protocol.
//!
//! A peer that hangs may not keep the deadline, which is only told to it: who cannot wait bounds the call. The calls
//! may be dropped at any time.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{Channel, with_deadline};

/// Says whether the program behind a channel answers at all: one that starts or stops does, too.
pub async fn is_alive(channel: Channel, deadline: Duration) -> bool {
    // A role of the same program is called directly, without the health service of its listener.
    matches!(check(channel, deadline).await, Ok(_) | Err(Code::Unimplemented))
}

/// Says whether the program behind a channel answers that it serves: none that starts or stops does.
pub async fn is_serving(channel: Channel, deadline: Duration) -> bool {
    check(channel, deadline).await == Ok(ServingStatus::Serving)
}

async fn check(channel: Channel, deadline: Duration) -> Result<ServingStatus, Code> {
    let request = with_deadline(HealthCheckRequest::default(), deadline);
    let answer = HealthClient::new(channel).check(request).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status: Status| status.code())
}
