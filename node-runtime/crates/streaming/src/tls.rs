//! The server's certificate.
//!
//! Owns: reading it, again when its files change, and the handshake's settings. Must not: ask for a client's certificate: the kubelet has none for us.
use berth_model::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

/// Files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those above it, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// How often the files are looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A certificate that follows its files.
pub(crate) struct Certificate {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    stamps: Stamps,
    looked: Instant,
}

/// What tells that a file is another one. A symbolic link is followed: that is how Kubernetes changes a mounted Secret.
type Stamps = [Option<(u64, u64, i64, i64, u64)>; 2];

impl Certificate {
    /// Reads the files. Blocks. Errors name the file.
    pub(crate) fn load(files: TlsFiles) -> Result<Self> {
        let stamps = stamps(&files);
        let state = State { acceptor: acceptor(&files)?, stamps, looked: Instant::now() };
        Ok(Self { files, state: Mutex::new(state) })
    }

    /// The certificate for a new connection, read again if its files have changed. Files that cannot be read, or do not belong together
    /// (yet), leave the former one in use. Blocks for no longer than two small files take.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < LOOK_AGAIN {
            return state.acceptor.clone();
        }
        state.looked = Instant::now();
        let now = stamps(&self.files);
        if now != state.stamps {
            match acceptor(&self.files) {
                Ok(acceptor) => {
                    tracing::info!(file = %self.files.certificate.display(), "the certificate is read again");
                    (state.acceptor, state.stamps) = (acceptor, now);
                }
                Err(e) => tracing::warn!(error = %e, "the former certificate stays in use"),
            }
        }
        state.acceptor.clone()
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let stamp = |path: &Path| {
        let m = std::fs::metadata(path).ok()?;
        Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
    };
    [stamp(&files.certificate), stamp(&files.key)]
}

/// Reads the files. Blocks. Errors name the file.
fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor> {
    let bad = |path: &Path, e: &dyn std::fmt::Display| Error::invalid(path.display(), e);
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| bad(&files.certificate, &e))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, &e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(format!("TLS: {e}")))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(&files.certificate, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
