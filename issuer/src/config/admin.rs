//! The admin listener: where it is, who may use it, and its TLS.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::secret::Secret;
use super::sources::{Reader, Readers, read_secret};

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

/// A certificate and its key, ready for use.
#[derive(Clone)]
pub struct Tls(pub Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
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
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<CertificateDer<'static>>, _>>);
        let chain = match chain {
            Ok(chain) if chain.is_empty() => Err("has no certificate".to_owned()),
            Ok(chain) => Ok(chain),
            Err(error) => Err(format!("can't be read: {error}")),
        };
        let chain = chain.map_err(|problem| format!("ADMIN_TLS_CERTIFICATE: {certificate} {problem}"));
        let text = read_secret(Path::new(key), Readers::OwnerAndGroup);
        let key_der = text.and_then(|text| {
            // The error's own words might quote the key.
            PrivateKeyDer::from_pem_slice(text.expose().as_bytes())
                .map_err(|_| "has no unencrypted private key in PEM".to_owned())
        });
        let key_der = key_der.map_err(|problem| format!("ADMIN_TLS_KEY: {key} {problem}"));
        let (chain, key_der) = match (chain, key_der) {
            (Ok(chain), Ok(key_der)) => (chain, key_der),
            (chain, key_der) => {
                for problem in [chain.err(), key_der.err()].into_iter().flatten() {
                    reader.problem(problem);
                }
                return None;
            }
        };
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der));
        match config {
            Ok(config) => Some(Self(Arc::new(config))),
            Err(error) => {
                reader.problem(format!("ADMIN_TLS_CERTIFICATE and ADMIN_TLS_KEY don't go together: {error}"));
                None
            }
        }
    }
}
