//! Gets and posts to URLs as an `<http_config>` of `prometheus.yml` says: who we are, whom we trust, where redirects may
//! lead.
//!
//! One [`Client`] per `<http_config>`: it keeps the connections and knows the credentials. Files with credentials are
//! read for every request, files of TLS are looked at for every request and read again when they have changed.
//!
//! Invariants:
//! - credentials go to the asked host only, wherever redirects lead;
//! - secrets are not seen in `Debug` texts.
//!
//! Deliberately absent: deadlines and bounds of bodies, which differ between those who ask; proxies and OAuth 2.0.
#![warn(missing_docs)]

mod client;
mod credentials;
mod error;
mod message;
mod tls;

pub use client::{AGENT, Client, HttpSettings, status_text};
pub use credentials::{Credentials, Secret};
pub use error::{Error, Result};
pub use tls::{Roots, TlsSettings, Version};
