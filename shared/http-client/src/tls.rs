//! TLS to servers, with rustls on ring.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};

use crate::credentials::Secret;

/// How long a TCP connection may be idle before it is probed.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// `tls_config`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// Authorities to trust instead of the machine's.
    pub ca: Option<Secret>,
    /// Our own certificate chain and key.
    pub identity: Option<(Secret, Secret)>,
    /// The name to verify instead of the URL's host.
    pub server_name: Option<String>,
    /// Trust whatever the server shows.
    pub insecure_skip_verify: bool,
    /// The only version to use, where the settings leave one.
    pub only_version: Option<Version>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Reads `min_version` and `max_version`: the only version they leave, or `None` for both that are built.
    ///
    /// # Errors
    /// When they leave none that is built.
    pub fn only(min: &str, max: &str) -> Result<Option<Self>, String> {
        match (min, max) {
            ("TLS13", "" | "TLS13") => Ok(Some(Self::Tls13)),
            ("" | "TLS10" | "TLS11" | "TLS12", "TLS12") => Ok(Some(Self::Tls12)),
            ("" | "TLS10" | "TLS11" | "TLS12", "" | "TLS13") => Ok(None),
            _ => Err(format!("tls_config: no version from {min:?} to {max:?} is built; TLS12 and TLS13 are")),
        }
    }
}

/// The state of the files that a connector was made of.
pub(crate) type Fingerprint = Vec<(Option<SystemTime>, u64)>;

/// The machine's certificate authorities, read when they are needed first. Clones share them.
#[derive(Clone, Default)]
pub struct Roots(Arc<OnceLock<Arc<RootCertStore>>>);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.0.get().map(|store| store.len())).finish()
    }
}

impl Roots {
    fn get(&self) -> Arc<RootCertStore> {
        let load = || {
            let mut store = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "read the machine's certificate authorities");
            }
            store.add_parsable_certificates(found.certs);
            Arc::new(store)
        };
        self.0.get_or_init(load).clone()
    }
}

impl TlsSettings {
    pub(crate) fn has_files(&self) -> bool {
        self.files().next().is_some()
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        self.ca.iter().chain(identity).filter_map(|secret| match secret {
            Secret::Text(_) => None,
            Secret::File(path) => Some(path.as_path()),
        })
    }

    /// Looks at the files. Blocks.
    pub(crate) fn fingerprint(&self) -> Result<Fingerprint, String> {
        let look = |path: &Path| {
            let found = std::fs::metadata(path);
            let found = found.map_err(|e| format!("unable to read file {}: {e}", path.display()))?;
            Ok((found.modified().ok(), found.len()))
        };
        self.files().map(look).collect()
    }

    /// Makes a connector. Reads files, so it blocks.
    pub(crate) fn connector(
        &self,
        roots: &Roots,
        enable_http2: bool,
    ) -> Result<HttpsConnector<HttpConnector>, String> {
        let config = self.client_config(roots)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let builder = match &self.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone()).map_err(|e| format!("server_name: {e}"))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        Ok(if enable_http2 {
            builder.enable_http1().enable_http2().wrap_connector(tcp)
        } else {
            builder.enable_http1().wrap_connector(tcp)
        })
    }

    fn client_config(&self, roots: &Roots) -> Result<ClientConfig, String> {
        const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let versions = match self.only_version {
            None => BOTH,
            Some(Version::Tls12) => &BOTH[1..],
            Some(Version::Tls13) => &BOTH[..1],
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnything(provider)))
        } else {
            builder.with_root_certificates(self.authorities(roots)?)
        };
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let chain = certificates(&pem(cert)?)?;
                let key = PrivateKeyDer::from_pem_slice(&pem(key)?);
                let key = key.map_err(|error| format!("unable to use the client key: {error}"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("unable to use the client certificate: {error}"))
            }
        }
    }

    fn authorities(&self, roots: &Roots) -> Result<Arc<RootCertStore>, String> {
        let Some(ca) = &self.ca else { return Ok(roots.get()) };
        let mut store = RootCertStore::empty();
        for certificate in certificates(&pem(ca)?)? {
            store.add(certificate).map_err(|error| format!("unable to use the CA certificate: {error}"))?;
        }
        Ok(Arc::new(store))
    }
}

fn pem(secret: &Secret) -> Result<Vec<u8>, String> {
    match secret {
        Secret::Text(text) => Ok(text.clone().into_bytes()),
        Secret::File(path) => {
            std::fs::read(path).map_err(|e| format!("unable to read file {}: {e}", path.display()))
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err("unable to use the certificate: no PEM certificate in it".to_owned()),
        Err(error) => Err(format!("unable to use the certificate: {error}")),
    }
}

/// `insecure_skip_verify`: the certificate is not looked at, the handshake's signatures are.
#[derive(Debug)]
struct TrustAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
