//! `tls_server_config`, with rustls on ring: TLS 1.2 and 1.3.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    DigitallySignedStruct, DistinguishedName, NamedGroup, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use serde::Deserialize;

/// What the section says; files are relative to the one that it stands in.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    cert: String,
    key: String,
    cert_file: String,
    key_file: String,
    client_auth_type: String,
    client_ca: String,
    client_ca_file: String,
    client_allowed_sans: Vec<String>,
    min_version: String,
    max_version: String,
    cipher_suites: Vec<String>,
    /// Of no effect, as in the reference: the server's order always counts.
    prefer_server_cipher_suites: bool,
    curve_preferences: Vec<String>,
}

impl Settings {
    /// Says whether there is to be TLS.
    pub(super) fn is_wanted(&self) -> bool {
        let texts = [
            &self.cert,
            &self.key,
            &self.cert_file,
            &self.key_file,
            &self.client_auth_type,
            &self.client_ca,
            &self.client_ca_file,
        ];
        texts.iter().any(|text| !text.is_empty())
    }

    /// The files it names, as it names them.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file];
        files.into_iter().map(String::as_str).filter(|file| !file.is_empty())
    }

    /// Reads the files and makes what connections are greeted with. Blocks.
    pub(super) fn server_config(&self, folder: &Path) -> Result<ServerConfig, String> {
        if !self.client_allowed_sans.is_empty() {
            return Err("client_allowed_sans is not built yet".to_owned());
        }
        let cert = pem("cert", &self.cert, &self.cert_file, folder)?;
        let key = pem("key", &self.key, &self.key_file, folder)?;
        let chain = certificates(&cert).map_err(|error| format!("failed to load certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| format!("failed to load key: {error}"))?;
        let provider = Arc::new(self.provider()?);
        let verifier = self.client_verifier(folder, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions()?)
            .map_err(|error| error.to_string())?;
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
        config.ignore_client_order = true;
        Ok(config)
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
        match (self.min_version.as_str(), self.max_version.as_str()) {
            ("TLS13", "" | "TLS13") => Ok(vec![&TLS13]),
            ("" | "TLS10" | "TLS11" | "TLS12", "TLS12") => Ok(vec![&TLS12]),
            ("" | "TLS10" | "TLS11" | "TLS12", "" | "TLS13") => Ok(vec![&TLS12, &TLS13]),
            (min, max) => Err(format!("no version from {min:?} to {max:?} is built; TLS12 and TLS13 are")),
        }
    }

    fn provider(&self) -> Result<CryptoProvider, String> {
        let mut provider = ring::default_provider();
        for name in &self.cipher_suites {
            // Only those of TLS 1.2 can be chosen, as in Go.
            let is_built =
                provider.cipher_suites.iter().any(|s| s.tls13().is_none() && suite_name(s) == *name);
            if !is_built {
                return Err(format!("unknown cipher: {name}"));
            }
        }
        if !self.cipher_suites.is_empty() {
            let is_wanted = |name: String| self.cipher_suites.contains(&name);
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || is_wanted(suite_name(suite)));
        }
        if !self.curve_preferences.is_empty() {
            let groups = self.curve_preferences.iter().map(|name| {
                let group = match name.as_str() {
                    "X25519" => NamedGroup::X25519,
                    "CurveP256" => NamedGroup::secp256r1,
                    "CurveP384" => NamedGroup::secp384r1,
                    _ => return Err(format!("unknown curve: {name}")),
                };
                let built = provider.kx_groups.iter().find(|built| built.name() == group);
                built.copied().ok_or_else(|| format!("unknown curve: {name}"))
            });
            provider.kx_groups = groups.collect::<Result<_, _>>()?;
        }
        Ok(provider)
    }

    fn client_verifier(
        &self,
        folder: &Path,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let has_roots = !self.client_ca.is_empty() || !self.client_ca_file.is_empty();
        let any = |is_required| {
            let verifier = AnyCertificate { is_required, provider: Arc::clone(provider) };
            Ok(Some(Arc::new(verifier) as Arc<dyn ClientCertVerifier>))
        };
        let is_required = match self.client_auth_type.as_str() {
            "" | "NoClientCert" if has_roots => {
                return Err("client CA's have been configured without a Client Auth Policy".to_owned());
            }
            "" | "NoClientCert" => return Ok(None),
            "RequestClientCert" => return any(false),
            "RequireAnyClientCert" | "RequireClientCert" => return any(true),
            "VerifyClientCertIfGiven" => false,
            "RequireAndVerifyClientCert" => true,
            other => return Err(format!("Invalid ClientAuth: {other}")),
        };
        let mut roots = RootCertStore::empty();
        if has_roots {
            let authorities = pem("client_ca", &self.client_ca, &self.client_ca_file, folder)?;
            for authority in certificates(&authorities)? {
                roots.add(authority).map_err(|error| format!("client_ca: {error}"))?;
            }
        } else {
            return Err(
                "client_auth_type: certificates are verified by a client_ca or client_ca_file".to_owned()
            );
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = if is_required { builder } else { builder.allow_unauthenticated() };
        Ok(Some(builder.build().map_err(|error| format!("client_ca: {error}"))?))
    }
}

fn suite_name(suite: &rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

/// A setting that is given as it is or as a file.
fn pem(name: &str, text: &str, file: &str, folder: &Path) -> Result<String, String> {
    match (text, file) {
        ("", "") => Err(format!("missing one of {name} or {name}_file")),
        (text, "") => Ok(text.to_owned()),
        ("", file) => {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        }
        _ => Err(format!("at most one of {name} and {name}_file may be set")),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate".to_owned()),
        found => found.map_err(|error| error.to_string()),
    }
}

/// Asks for a certificate and takes any: that its sender has the key to it is all that is verified.
#[derive(Debug)]
struct AnyCertificate {
    is_required: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
