//! The etcd that a program's members coordinate through.

use std::sync::Arc;
use std::time::Duration;

use coordination::{Coordinator, Etcd, EtcdOptions};
use tonic::transport;

use crate::BoxError;

/// How long a connection to a member of etcd may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Coordinates through etcd. Nothing is connected before the first call.
pub(crate) fn coordinator(options: EtcdOptions) -> Arc<dyn Coordinator> {
    Arc::new(Etcd::new(options, Arc::new(connect)))
}

fn connect(address: &str) -> Result<rpc::Channel, BoxError> {
    // No HTTP/2 pings: etcd ends connections on which they come often, and watches ask for signs of life themselves.
    let endpoint = transport::Endpoint::from_shared(format!("http://{address}"))?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy();
    Ok(rpc::Channel::new(channel))
}
