//! OTLP's gRPC face: who may come in, decode, one call, encode.

use std::sync::Arc;
use std::time::Duration;

use model::Tenant;
use model::tenant::TENANT_HEADER;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use service_runtime::{GrpcServices, Shutdown};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codec::CompressionEncoding;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::config::Config;
use crate::grpc::Opened;
use crate::otlp::{Outcome, Receiver};

/// When a sender that was told to wait may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long requests under way may take to end when the service stops; what is not answered then is sent again.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Serves OTLP's contract.
#[derive(Debug, Clone)]
pub(crate) struct OtlpServer {
    storage: Opened,
    receiver: Arc<Receiver>,
    places: Arc<Semaphore>,
    message_bytes_max: usize,
    shutdown: Shutdown,
}

impl OtlpServer {
    pub(crate) fn new(config: &Config, storage: Opened, receiver: Arc<Receiver>, shutdown: Shutdown) -> Self {
        let places = Arc::new(Semaphore::new(config.otlp_requests_max));
        Self { storage, receiver, places, message_bytes_max: config.otlp_message_bytes_max, shutdown }
    }

    /// Adds the service with its bounds: a request finds a place before its body is read, and a body that is or becomes
    /// larger than allowed is refused before it is whole in memory.
    pub(crate) fn add_to(&self, services: GrpcServices) -> GrpcServices {
        let server = MetricsServiceServer::new(self.clone())
            .max_decoding_message_size(self.message_bytes_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let places = Arc::clone(&self.places);
        let enter = move |mut request: Request<()>| {
            let place =
                Arc::clone(&places).try_acquire_owned().map_err(|_| overloaded("too many OTLP requests"))?;
            request.extensions_mut().insert(Place(Arc::new(place)));
            Ok(request)
        };
        services.add(InterceptedService::new(server, enter))
    }

    async fn stopping(&self) {
        self.shutdown.requested().await;
        tokio::time::sleep(STOP_GRACE).await;
    }
}

/// A request's place, held until it is answered.
#[derive(Debug, Clone)]
struct Place(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

#[tonic::async_trait]
impl MetricsService for OtlpServer {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.storage.get()?;
        let tenant = tenant(&request)?;
        // The extensions hold the request's place.
        let (_, _extensions, request) = request.into_parts();
        let receiver = Arc::clone(&self.receiver);
        let taken = tokio::task::spawn_blocking(move || receiver.take(&tenant, &request)).await;
        let taken = taken.map_err(|e| Status::internal(format!("translate: {e}")))?;
        let under_way = taken.map_err(|e| status(&e))?;
        tokio::select! {
            outcome = self.receiver.finish(under_way) => {
                outcome.map(|outcome| Response::new(response(&outcome))).map_err(|e| status(&e))
            }
            () = self.stopping() => Err(Status::unavailable("the ingester is stopping")),
        }
    }
}

fn tenant(request: &Request<ExportMetricsServiceRequest>) -> Result<Tenant, Status> {
    let Some(name) = request.metadata().get(TENANT_HEADER) else { return Ok(Tenant::default()) };
    let name = name.to_str().map_err(|_| Status::invalid_argument(format!("{TENANT_HEADER}: not ASCII")))?;
    Tenant::new(name).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn response(outcome: &Outcome) -> ExportMetricsServiceResponse {
    let (points, message) = (outcome.rejected.points(), outcome.rejected.message());
    let partial = (points > 0 || !message.is_empty()).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: i64::try_from(points).unwrap_or(i64::MAX),
        error_message: message,
    });
    ExportMetricsServiceResponse { partial_success: partial }
}

/// OTLP's senders try again on `Unavailable`, and on `ResourceExhausted` only when they are told when.
fn status(error: &group_writer::Error) -> Status {
    match error.kind() {
        fault::Kind::Busy => overloaded(&error.to_string()),
        fault::Kind::Timeout | fault::Kind::Unavailable | fault::Kind::Cancelled => {
            Status::unavailable(error.to_string())
        }
        kind => rpc::status::status(kind, error.to_string()),
    }
}

fn overloaded(text: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, text, details)
}
