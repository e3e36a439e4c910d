//! The certificate of a listener that speaks TLS: read at the start, and taken up anew when its files are replaced.
//!
//! The files are looked at every few seconds. Whoever renews certificates (an ACME client, cert-manager, a mounted secret) replaces files and tells nobody, and in a
//! container there is nobody to send a signal; two small files cost nothing to read. It is their content that counts, not their time: a link may come to point
//! elsewhere, and copies may keep their times.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{self, Digest, SHA256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tracing::{error, info};
use x509_parser::parse_x509_certificate;

use crate::clock;
use crate::config::{Readers, read_secret};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What must not be forgotten is said again after this.
const AGAIN: Duration = Duration::from_mins(1);

/// A certificate chain and its key, by the files that they are in.
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    served: RwLock<Arc<Served>>,
    /// The files have something else than what is served, which can't be.
    is_stuck: AtomicBool,
}

/// What clients are shown.
struct Served {
    pair: Arc<CertifiedKey>,
    ends_at: OffsetDateTime,
    /// Of both files.
    content: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("chain_file", &self.chain_file).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served().pair.clone())
    }
}

impl Certificate {
    /// Reads both files, PEM. `Err`: everything that is wrong with them, each beginning with the file's setting.
    pub fn open(chain_file: &str, key_file: &str) -> Result<Self, Vec<String>> {
        let (chain_file, key_file) = (PathBuf::from(chain_file), PathBuf::from(key_file));
        let served = read(&chain_file, &key_file)?;
        let served = RwLock::new(Arc::new(served));
        Ok(Self { chain_file, key_file, served, is_stuck: AtomicBool::new(false) })
    }

    fn served(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the certificate that is served ends.
    pub fn ends_at(&self) -> OffsetDateTime {
        self.served().ends_at
    }

    /// Whether the files have something else, which can't be served.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// Takes up what the files have whenever that changes, until `stopping`. What can't be used changes nothing but the log and [`Self::is_stuck`].
    pub fn watch(self: &Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let certificate = self.clone();
        let looking = async move {
            let mut trouble = None;
            loop {
                sleep(LOOK).await;
                let looked = certificate.clone();
                let looked = tokio::task::spawn_blocking(move || looked.look(trouble));
                trouble = looked.await.ok().flatten();
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = looking => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
    }

    /// Looks once. `before`: what couldn't be used at the last look.
    fn look(&self, before: Option<Trouble>) -> Option<Trouble> {
        let content = digest_of(&self.chain_file, &self.key_file);
        if content.as_deref() == Some(&self.served().content) {
            if self.is_stuck.swap(false, Ordering::Relaxed) {
                info!("the files of ADMIN_TLS_CERTIFICATE and ADMIN_TLS_KEY have again what is served");
            }
            return None;
        }
        let problems = match read(&self.chain_file, &self.key_file) {
            Ok(new) if new.ends_at <= clock::precise() => {
                vec![format!(
                    "ADMIN_TLS_CERTIFICATE: {} ended at {}",
                    self.chain_file.display(),
                    text(new.ends_at)
                )]
            }
            Ok(new) => {
                let ends_at = text(new.ends_at);
                *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                self.is_stuck.store(false, Ordering::Relaxed);
                info!(ends_at, "the admin listener's certificate was replaced");
                return None;
            }
            Err(problems) => problems,
        };
        // One of the two files may have been replaced, and the other be about to: what is wrong has to be wrong at two looks.
        let Some(mut trouble) = before.filter(|before| before.content == content) else {
            return Some(Trouble { content, said: None });
        };
        self.is_stuck.store(true, Ordering::Relaxed);
        if trouble.said.is_none_or(|said| said.elapsed() >= AGAIN) {
            let (problems, ends_at) = (problems.join("; "), text(self.ends_at()));
            error!(
                problems,
                ends_at,
                "the admin listener's new certificate can't be used, and the old one is served on: mend the files"
            );
            trouble.said = Some(Instant::now());
        }
        Some(trouble)
    }
}

/// Files that can't be used.
struct Trouble {
    /// `None`: one of them can't be read.
    content: Option<Vec<u8>>,
    /// When that was last in the log.
    said: Option<Instant>,
}

fn text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn digest_of(chain_file: &Path, key_file: &Path) -> Option<Vec<u8>> {
    let of = |file: &Path| Some(digest::digest(&SHA256, &zeroize::Zeroizing::new(fs::read(file).ok()?)));
    let (chain, key): (Digest, Digest) = (of(chain_file)?, of(key_file)?);
    Some([chain.as_ref(), key.as_ref()].concat())
}

fn read(chain_file: &Path, key_file: &Path) -> Result<Served, Vec<String>> {
    // Before the content: should they be replaced meanwhile, the next look sees a difference.
    let content = digest_of(chain_file, key_file).unwrap_or_default();
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(Iterator::collect::<Result<Vec<CertificateDer<'static>>, _>>);
    let chain = match chain {
        Ok(chain) if chain.is_empty() => Err("has no certificate".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("can't be read: {error}")),
    };
    let ends_at = |chain: Vec<CertificateDer<'static>>| {
        let ends_at = chain.first().and_then(|first| {
            let (_, parsed) = parse_x509_certificate(first).ok()?;
            Some(parsed.validity().not_after.to_datetime())
        });
        ends_at
            .map(|ends_at| (chain, ends_at))
            .ok_or_else(|| "has no certificate that can be read".to_owned())
    };
    let chain = chain.and_then(ends_at);
    let chain = chain.map_err(|problem| format!("ADMIN_TLS_CERTIFICATE: {} {problem}", chain_file.display()));
    let key = read_secret(key_file, Readers::OwnerAndGroup).and_then(|text| {
        // The error's own words might quote the key.
        PrivateKeyDer::from_pem_slice(text.expose().as_bytes())
            .map_err(|_| "has no unencrypted private key in PEM".to_owned())
    });
    let key = key.map_err(|problem| format!("ADMIN_TLS_KEY: {} {problem}", key_file.display()));
    let ((chain, ends_at), key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
    };
    let pair = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
        vec![format!("ADMIN_TLS_CERTIFICATE and ADMIN_TLS_KEY don't go together: {error}")]
    })?;
    Ok(Served { pair: Arc::new(pair), ends_at, content })
}
