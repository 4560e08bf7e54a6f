//! Asks a peer whether it serves.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{Channel, with_deadline};

/// Says whether the program behind a channel answers that it serves (gRPC health, the service `""`).
///
/// A peer that is gone, starts or stops does not. One that hangs may not keep the deadline, which is only told to it:
/// who cannot wait bounds the call. May be dropped at any time.
pub async fn is_serving(channel: Channel, deadline: Duration) -> bool {
    let request = with_deadline(HealthCheckRequest::default(), deadline);
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}
