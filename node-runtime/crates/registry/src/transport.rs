//! Connections: which scheme a registry speaks, one HTTP client per TLS setting, one request at a time.
//!
//! Owns: pools and the classification of what went wrong on the wire. Must not: follow redirects, authenticate, retry.
use crate::config::{ClientConfig, HostConfig};
use crate::endpoint;
use crate::error::{Failure, unavailable};
use crate::tls;
use berth_model::{Error, Result};
use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a loopback registry may take to answer a TLS greeting before it is taken for one of plain HTTP.
const PROBE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(30);
const IDLE_PER_HOST: usize = 8;

type Http = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Whose TLS settings a connection uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pool {
    /// Plain HTTP: no settings, and the system's certificates need not be read.
    Plain,
    /// The system's certificates.
    System,
    /// Those of this registry.
    Host(String),
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Transport {
    pub config: ClientConfig,
    pools: Mutex<HashMap<Pool, Http>>,
    schemes: Mutex<HashMap<String, Scheme>>,
}

impl Transport {
    pub fn new(config: ClientConfig) -> Self {
        Self { config, pools: Mutex::default(), schemes: Mutex::default() }
    }

    /// The scheme that `host` speaks. What is configured decides; else it is HTTPS, except that a loopback registry which does
    /// not answer TLS is spoken to in plain HTTP. A bad certificate is an answer in TLS: nothing falls back from that.
    pub async fn scheme(&self, host: &str) -> Result<Scheme, Failure> {
        let settings = self.config.hosts.get(host);
        if settings.is_some_and(|s| s.plain_http) {
            return Ok(Scheme::HTTP);
        }
        let tls_wanted = settings.is_some_and(|s| !s.ca_pem.is_empty() || s.insecure_skip_verify);
        if tls_wanted || !endpoint::is_loopback(host) {
            return Ok(Scheme::HTTPS);
        }
        if let Some(known) = lock(&self.schemes).get(host) {
            return Ok(known.clone());
        }
        let scheme = self.probe(host).await?;
        lock(&self.schemes).insert(host.to_owned(), scheme.clone());
        Ok(scheme)
    }

    /// Greets a loopback registry in TLS.
    async fn probe(&self, host: &str) -> Result<Scheme, Failure> {
        let name = endpoint::without_port(host);
        let has_port = name.len() < host.len();
        let target = if has_port { host.to_owned() } else { format!("{host}:443") };
        let stream = match timeout(self.config.timeouts.connect, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) if !has_port => return Ok(Scheme::HTTP),
            Ok(Err(e)) => return Err(Failure::Again(unavailable(host, format!("cannot be reached: {e}")), None)),
            Err(_) => return Err(Failure::Again(unavailable(host, "cannot be reached: timed out"), None)),
        };
        let settings = HostConfig { insecure_skip_verify: true, ..HostConfig::default() };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls::config(host, &settings)?));
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
            .map_err(|_| Error::invalid("image reference", format!("registry host {host:?} is not a host name")))?;
        match timeout(PROBE, connector.connect(name, stream)).await {
            Ok(Ok(_)) => Ok(Scheme::HTTPS),
            Ok(Err(e)) if speaks_tls(&e) => Ok(Scheme::HTTPS),
            _ => Ok(Scheme::HTTP),
        }
    }

    /// Sends one request on behalf of the registry `host`, whose name stands in errors.
    pub async fn send(&self, host: &str, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let http = self.pool(&self.pool_for(host, request.uri()))?;
        let limit = self.config.timeouts.header;
        match timeout(limit, http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                lock(&self.schemes).remove(host);
                Err(classify(host, &e))
            }
            Err(_) => {
                let text = format!("sent no answer within {} ms", limit.as_millis());
                Err(Failure::Again(unavailable(host, text), None))
            }
        }
    }

    /// A server that the registry sends us to (redirects, token servers) has its own settings if it has any. Else it shares the
    /// registry's, because private CAs sign whole sites; that certificates are not checked holds for the same host name only.
    fn pool_for(&self, host: &str, uri: &Uri) -> Pool {
        if uri.scheme() == Some(&Scheme::HTTP) {
            return Pool::Plain;
        }
        let authority = uri.authority().map_or("", |a| a.as_str());
        if endpoint::authority(host) != authority && self.has_tls_settings(authority) {
            return Pool::Host(authority.to_owned());
        }
        let same_name = endpoint::without_port(endpoint::authority(host)) == endpoint::without_port(authority);
        let unchecked = self.config.hosts.get(host).is_some_and(|s| s.insecure_skip_verify);
        if self.has_tls_settings(host) && (same_name || !unchecked) {
            return Pool::Host(host.to_owned());
        }
        Pool::System
    }

    fn has_tls_settings(&self, host: &str) -> bool {
        self.config.hosts.get(host).is_some_and(|s| !s.ca_pem.is_empty() || s.insecure_skip_verify)
    }

    fn pool(&self, key: &Pool) -> Result<Http> {
        let mut pools = lock(&self.pools);
        if let Some(found) = pools.get(key) {
            return Ok(found.clone());
        }
        let tls = match key {
            Pool::Plain => rustls::ClientConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .map_err(|e| Error::internal(format!("TLS: {e}")))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
            Pool::System => tls::config("", &HostConfig::default())?,
            Pool::Host(host) => tls::config(host, self.config.hosts.get(host).unwrap_or(&HostConfig::default()))?,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.config.timeouts.connect));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(connector);
        pools.insert(key.clone(), http.clone());
        Ok(http)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The peer's bytes were TLS, whatever it said in it.
fn speaks_tls(e: &std::io::Error) -> bool {
    match rustls_error(e) {
        Some(rustls::Error::InvalidMessage(_)) | None => false,
        Some(_) => true,
    }
}

/// The TLS error inside an I/O error, which may be wrapped in another one.
fn rustls_error(e: &std::io::Error) -> Option<&rustls::Error> {
    let inner = e.get_ref()?;
    inner.downcast_ref().or_else(|| rustls_error(inner.downcast_ref()?))
}

/// Certificates that are wrong stay wrong; everything else on the wire may pass.
fn classify(host: &str, e: &legacy::Error) -> Failure {
    let (mut deepest, mut certificate): (&dyn std::error::Error, _) = (e, None);
    loop {
        if let Some(io) = deepest.downcast_ref::<std::io::Error>()
            && let Some(found @ rustls::Error::InvalidCertificate(_)) = rustls_error(io)
        {
            certificate = Some(found);
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => break,
        }
    }
    if let Some(problem) = certificate {
        let text = format!("is not trusted: {problem}; add its CA to the registry's TLS settings");
        return Failure::Final(unavailable(host, text));
    }
    let what = if e.is_connect() { "cannot be reached" } else { "broke off its answer" };
    Failure::Again(unavailable(host, format!("{what}: {deepest}")), None)
}
