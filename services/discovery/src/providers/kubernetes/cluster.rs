//! Ways to API servers, one for each cluster however many providers name it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use service_runtime::BoxError;
use tokio::sync::Mutex;

use super::watched::Kind;
use crate::prometheus_config::{Cluster, HttpClient};
use crate::providers::{Context, client};

/// How long an answer may take to begin. Between the events of a watch there may be more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may be silent: longer than the watcher lets a watch be.
const SILENCE_MAX: Duration = Duration::from_secs(330);
/// The namespace of those who do not say in which they are.
const DEFAULT_NAMESPACE: &str = "default";

/// The clusters that are watched. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters(Arc<Mutex<HashMap<Cluster, Weak<Connection>>>>);

/// The way to one cluster, and all that is watched there.
pub(super) struct Connection {
    own_namespace: String,
    pub(super) pods: Kind<Pod>,
    pub(super) services: Kind<Service>,
    pub(super) endpoints: Kind<Endpoints>,
    pub(super) endpoint_slices: Kind<EndpointSlice>,
    pub(super) ingresses: Kind<Ingress>,
    pub(super) nodes: Kind<Node>,
    pub(super) namespaces: Kind<Namespace>,
    pub(super) replica_sets: Kind<ReplicaSet>,
    pub(super) jobs: Kind<Job>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("own_namespace", &self.own_namespace).finish_non_exhaustive()
    }
}

impl Clusters {
    /// The way to a cluster: the one there is, or a new one. Nothing is asked for yet.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(super) async fn connect(
        &self,
        cluster: &Cluster,
        context: &Context,
    ) -> Result<Arc<Connection>, BoxError> {
        let mut connections = self.0.lock().await;
        connections.retain(|_, connection| connection.strong_count() > 0);
        if let Some(connection) = connections.get(cluster).and_then(Weak::upgrade) {
            return Ok(connection);
        }
        let client = match cluster {
            Cluster::Own => own(kube::Config::incluster()?)?,
            Cluster::Kubeconfig(path) => own(kubeconfig(path).await?)?,
            Cluster::Server { url, http } => server(url, http, context)?,
        };
        let connection = Arc::new(Connection::new(&client, context));
        connections.insert(cluster.clone(), Arc::downgrade(&connection));
        Ok(connection)
    }
}

impl Connection {
    fn new(client: &Client, context: &Context) -> Self {
        fn kind<K: super::watched::Watchable>(client: &Client, context: &Context) -> Kind<K> {
            Kind::new(client.clone(), context.tasks.clone(), context.metrics.clone())
        }
        Self {
            own_namespace: client.default_namespace().to_owned(),
            pods: kind(client, context),
            services: kind(client, context),
            endpoints: kind(client, context),
            endpoint_slices: kind(client, context),
            ingresses: kind(client, context),
            nodes: kind(client, context),
            namespaces: kind(client, context),
            replica_sets: kind(client, context),
            jobs: kind(client, context),
        }
    }

    /// The namespace that discovery runs in.
    pub(super) fn own_namespace(&self) -> &str {
        &self.own_namespace
    }
}

/// A client as a service account or a kubeconfig file has it. Its token file is read again about once a minute.
fn own(mut config: kube::Config) -> Result<Client, BoxError> {
    config.read_timeout = Some(SILENCE_MAX);
    config.reset_reader_on_write = true;
    config.headers.push((::http::header::USER_AGENT, ::http::HeaderValue::from_static(http_client::AGENT)));
    Ok(Client::try_from(config)?)
}

async fn kubeconfig(path: &str) -> Result<kube::Config, BoxError> {
    let file = Path::new(path).to_owned();
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(file)).await?;
    let read = read.map_err(|error| format!("read kubeconfig {path}: {error}"))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    config.map_err(|error| format!("use kubeconfig {path}: {error}").into())
}

/// A client for `api_server`, with TLS and credentials as scrapes have them: their files are read again when they
/// change. HTTP/2 is off, as in Prometheus.
fn server(url: &str, http: &HttpClient, context: &Context) -> Result<Client, BoxError> {
    let mut settings = client::settings(http)?;
    settings.enable_http2 = false;
    let http = Arc::new(http_client::Client::new(settings, context.roots.clone()));
    let base: Arc<str> = url.trim_end_matches('/').into();
    let ask = move |request: Request<Body>| {
        let (http, url) = (http.clone(), format!("{base}{}", request.uri()));
        // Lists and watches are GETs without a body.
        async move {
            let asked = tokio::time::timeout(ANSWER_TIMEOUT, http.get(&url, request.headers()));
            let response: Response<Incoming> = asked.await??;
            Ok::<_, BoxError>(response)
        }
    };
    Ok(Client::new(tower::service_fn(ask), DEFAULT_NAMESPACE))
}
