//! Connections: which scheme a server speaks, one HTTP client per TLS setting, one request at a time.
//!
//! Owns: pools and the classification of what went wrong on the wire. Must not: follow redirects, authenticate, retry.
use crate::config::{ClientConfig, Tls};
use crate::connect::Connector;
use crate::endpoint;
use crate::error::{Failure, unavailable};
use crate::health::Health;
use crate::observe::Observation;
use crate::proxy::ProxyConfig;
use crate::site::Site;
use crate::tls;
use berth_model::{Error, Result};
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
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

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Http = legacy::Client<HttpsConnector<Connector>, Body>;

/// Whose TLS settings a connection uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Identity {
    /// Plain HTTP: no settings, and the system's certificates need not be read.
    Plain,
    /// The system's certificates.
    System,
    /// Those of this registry or mirror.
    Site(String),
    /// Its authorities alone, for servers that it sends us to: they are shown no certificate of ours.
    Beyond(String),
}

/// Connections that may be shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pool {
    identity: Identity,
    /// One connection for each request under way, which HTTP/2 would not give.
    lanes: bool,
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Transport {
    pub config: ClientConfig,
    pub health: Health,
    proxy: Arc<ProxyConfig>,
    pools: Mutex<HashMap<Pool, Http>>,
    schemes: Mutex<HashMap<String, Scheme>>,
}

impl Transport {
    pub fn new(config: ClientConfig) -> Self {
        let proxy = Arc::new(config.proxy.clone());
        Self { config, health: Health::default(), proxy, pools: Mutex::default(), schemes: Mutex::default() }
    }

    /// Tells the observer, if there is one.
    pub fn tell(&self, observation: &Observation<'_>) {
        if let Some(observer) = &self.config.observer {
            observer.observe(observation);
        }
    }

    /// The scheme that a site speaks. What is configured decides; else it is HTTPS, except that a loopback registry which does
    /// not answer TLS is spoken to in plain HTTP. A bad certificate is an answer in TLS: nothing falls back from that.
    pub async fn scheme(&self, site: &Site) -> Result<Scheme, Failure> {
        if let Some(scheme) = &site.scheme {
            return Ok(scheme.clone());
        }
        let host = &site.authority;
        if site.tls.is_set() || !endpoint::is_loopback(host) {
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
        let settings = Tls { insecure_skip_verify: true, ..Tls::default() };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls::config(host, &settings)?));
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
            .map_err(|_| Error::invalid("image reference", format!("registry host {host:?} is not a host name")))?;
        match timeout(PROBE, connector.connect(name, stream)).await {
            Ok(Ok(_)) => Ok(Scheme::HTTPS),
            Ok(Err(e)) if speaks_tls(&e) => Ok(Scheme::HTTPS),
            _ => Ok(Scheme::HTTP),
        }
    }

    /// Sends one request on behalf of a site, whose name stands in errors. `lanes` gives it a connection of its own, `patience`
    /// time beyond the usual.
    pub async fn send(
        &self,
        site: &Site,
        mut request: Request<Body>,
        lanes: bool,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let http = self.pool(Pool { identity: self.identity(site, request.uri()), lanes }, site)?;
        self.sign_for_proxy(&mut request);
        let limit = self.config.timeouts.header + patience;
        match timeout(limit, http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                lock(&self.schemes).remove(&site.authority);
                Err(classify(site.name(), &e))
            }
            Err(_) => {
                let text = format!("sent no answer within {} ms", limit.as_millis());
                Err(Failure::Again(unavailable(site.name(), text), None))
            }
        }
    }

    /// A request in plain HTTP shows the proxy its credentials itself; with HTTPS the tunnel has.
    fn sign_for_proxy(&self, request: &mut Request<Body>) {
        if request.uri().scheme() != Some(&Scheme::HTTP) {
            return;
        }
        let value = self.proxy.choose(request.uri()).and_then(crate::proxy::Proxy::authorization);
        if let Some(Ok(mut value)) = value.map(|v| HeaderValue::from_str(v.expose())) {
            value.set_sensitive(true);
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
    }

    /// A server that a site sends us to (redirects, token servers) has its own settings if it has any. Else it shares the
    /// site's authorities, because private CAs sign whole sites; that certificates are not checked holds for the same host name
    /// only, and the client certificate is for the site alone.
    fn identity(&self, site: &Site, uri: &Uri) -> Identity {
        if uri.scheme() == Some(&Scheme::HTTP) {
            return Identity::Plain;
        }
        let authority = uri.authority().map_or("", |a| a.as_str());
        if authority == site.authority {
            return if site.tls.is_set() { Identity::Site(site.name().to_owned()) } else { Identity::System };
        }
        if self.config.hosts.get(authority).is_some_and(|s| s.tls.is_set()) {
            return Identity::Site(authority.to_owned());
        }
        let same_name = endpoint::without_port(&site.authority) == endpoint::without_port(authority);
        if site.tls.is_set() && (same_name || !site.tls.insecure_skip_verify) {
            return Identity::Beyond(site.name().to_owned());
        }
        Identity::System
    }

    fn pool(&self, key: Pool, site: &Site) -> Result<Http> {
        let mut pools = lock(&self.pools);
        if let Some(found) = pools.get(&key) {
            return Ok(found.clone());
        }
        let own = |name: &str| match name == site.name() {
            true => site.tls.clone(),
            false => self.config.hosts.get(name).map(|s| s.tls.clone()).unwrap_or_default(),
        };
        let settings = match &key.identity {
            Identity::Plain | Identity::System => Tls::default(),
            Identity::Site(name) => own(name),
            Identity::Beyond(_) => Tls { client: None, server_name: None, ..site.tls.clone() },
        };
        let tls = match &key.identity {
            Identity::Plain => rustls::ClientConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .map_err(|e| Error::internal(format!("TLS: {e}")))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
            _ => tls::config(site.name(), &settings)?,
        };
        let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = settings.server_name {
            let name = ServerName::try_from(name).map_err(|e| Error::invalid("tls.serverName", e))?;
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let tcp = Connector::new(Arc::clone(&self.proxy), self.config.timeouts.connect);
        let connector = match key.lanes {
            true => builder.enable_http1().wrap_connector(tcp),
            false => builder.enable_http1().enable_http2().wrap_connector(tcp),
        };
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http2_adaptive_window(true)
            .http2_max_header_list_size(64 << 10)
            .build(connector);
        pools.insert(key, http.clone());
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
