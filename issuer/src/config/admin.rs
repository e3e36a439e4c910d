//! The admin listener: where it is, who may use it, and its TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::secret::Secret;
use super::sources::Reader;
use crate::certificates::Certificate;

/// The shortest `ADMIN_TOKEN`, in characters.
const MIN_TOKEN: usize = 32;

/// The admin listener's settings.
#[derive(Debug)]
pub struct Admin {
    /// Where it is.
    pub address: SocketAddr,
    /// What callers show, but for probes; `None` on the loopback only.
    pub token: Option<Secret>,
    /// Its certificate; plain HTTP without it.
    pub tls: Option<Tls>,
}

/// TLS, ready for use.
#[derive(Debug, Clone)]
pub struct Tls {
    /// How it is spoken: with `certificate`, as it is at the moment.
    pub config: Arc<ServerConfig>,
    /// What clients are shown.
    pub certificate: Arc<Certificate>,
}

impl Admin {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let address = reader.parsed(
            "ADMIN_ADDRESS",
            SocketAddr::from(([127, 0, 0, 1], 9090)),
            "an IP address and port",
        );
        let before = reader.problem_count();
        let token = reader.secret("ADMIN_TOKEN");
        match &token {
            Some(token) if token.expose().chars().count() < MIN_TOKEN => {
                reader.problem(format!(
                    "ADMIN_TOKEN must have at least {MIN_TOKEN} characters: make one with `openssl rand -base64 32`"
                ));
            }
            None if !is_loopback(address.ip()) && reader.problem_count() == before => {
                reader.problem(format!(
                    "ADMIN_TOKEN environment variable is required with ADMIN_ADDRESS {address}, which others can reach: set it to a \
                     secret of at least {MIN_TOKEN} characters, or bind to the loopback"
                ));
            }
            _ => {}
        }
        Self { address, token, tls: Tls::read(reader) }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Tls {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (certificate, key) = match (reader.text("ADMIN_TLS_CERTIFICATE"), reader.text("ADMIN_TLS_KEY")) {
            (None, None) => return None,
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                reader.problem("ADMIN_TLS_KEY environment variable is required with ADMIN_TLS_CERTIFICATE: set it to the path of the key, in PEM");
                return None;
            }
            (None, Some(_)) => {
                reader.problem("ADMIN_TLS_CERTIFICATE environment variable is required with ADMIN_TLS_KEY: set it to the path of the certificate chain, in PEM");
                return None;
            }
        };
        let certificate = match Certificate::open(certificate, key) {
            Ok(certificate) => Arc::new(certificate),
            Err(problems) => {
                for problem in problems {
                    reader.problem(problem);
                }
                return None;
            }
        };
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth().with_cert_resolver(certificate.clone()));
        match config {
            Ok(config) => Some(Self { config: Arc::new(config), certificate }),
            Err(error) => {
                reader.problem(format!("the admin listener can't speak TLS: {error}"));
                None
            }
        }
    }
}
