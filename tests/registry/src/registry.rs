//! The handle that tests hold: start, fill, spoil, count.
//!
//! Owns: the life of the server. Must not: answer requests.
use crate::fault::{Fault, Rule, When};
use crate::image::{BuiltImage, ImageBuilder, OCI_INDEX, build_index};
use crate::server::{self, Shared};
use crate::sha256;
use crate::state::Request;
use crate::tls::Identity;
use berth_model::Digest;
use bytes::Bytes;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::oneshot;

/// How a registry is started. The default: 127.0.0.1, any free port, plain HTTP, open to all.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port; 0 is any free one.
    pub port: u16,
    /// HTTPS with a certificate from a CA of its own ([`Registry::ca_pem`]), for `localhost`, `127.0.0.1` and `::1`.
    pub tls: bool,
    /// With `tls`: clients must show a certificate of the same CA ([`Registry::client_identity`]).
    pub client_certificate: bool,
    /// Further names in that certificate.
    pub names: Vec<String>,
    /// Who may do what.
    pub auth: AuthMode,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            tls: false,
            client_certificate: false,
            names: Vec::new(),
            auth: AuthMode::Open,
        }
    }
}

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub enum AuthMode {
    /// Everybody, everything.
    #[default]
    Open,
    /// HTTP Basic.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// Bearer tokens from `/token` of the same server (distribution's token authentication).
    Token(TokenAuth),
}

/// The token server's settings.
#[derive(Debug, Clone)]
pub struct TokenAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Identity (refresh) token that is accepted by POST.
    pub identity_token: Option<String>,
    /// Whether nobody in particular gets tokens for pulling.
    pub anonymous_pull: bool,
    /// Life of a token in seconds.
    pub expires_in: u64,
    /// Realm in challenges, if not this server's `/token`.
    pub realm: Option<String>,
}

impl Default for TokenAuth {
    fn default() -> Self {
        Self {
            username: "user".into(),
            password: "secret".into(),
            identity_token: None,
            anonymous_pull: false,
            expires_in: 300,
            realm: None,
        }
    }
}

/// A running registry. Dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct Registry {
    addr: SocketAddr,
    shared: Arc<Shared>,
    ca_pem: Option<String>,
    client: Option<(String, String)>,
    server: Option<(String, String)>,
    _stop: oneshot::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Registry {
    /// Starts on the current tokio runtime. Errors: the address cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let make = || Identity::generate(options.client_certificate, &options.names);
        let identity = options.tls.then(make).transpose()?;
        let listener = tokio::net::TcpListener::bind((options.bind, options.port)).await?;
        let addr = listener.local_addr()?;
        let scheme = if options.tls { "https" } else { "http" };
        let shared = Arc::new(Shared::new(options.auth, format!("{scheme}://{addr}")));
        let (stop, stopped) = oneshot::channel();
        let ca_pem = identity.as_ref().map(|i| i.ca_pem.clone());
        let client = identity.as_ref().map(|i| i.client.clone());
        let server = identity.as_ref().map(|i| i.server.clone());
        let acceptor = identity.map(|i| i.acceptor);
        tokio::spawn(server::serve(listener, acceptor, Arc::clone(&shared), stopped));
        Ok(Self { addr, shared, ca_pem, client, server, _stop: stop, thread: None })
    }

    /// Starts on a thread and a runtime of its own, for callers without one.
    pub fn start_blocking(options: Options) -> io::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("test-registry".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let started = runtime.and_then(|rt| rt.block_on(Self::start(options)).map(|registry| (rt, registry)));
            match started {
                Ok((runtime, registry)) => {
                    let (addr, shared) = (registry.addr, Arc::clone(&registry.shared));
                    let ca_pem = registry.ca_pem.clone();
                    let (client, server) = (registry.client.clone(), registry.server.clone());
                    let (stop, stopped) = oneshot::channel::<()>();
                    let _ = sender.send(Ok((addr, shared, ca_pem, client, server, stop)));
                    // Ends when the handle drops its sender; the inner registry and the runtime end with it.
                    let _ = runtime.block_on(stopped);
                    drop(registry);
                }
                Err(e) => {
                    let _ = sender.send(Err(e));
                }
            }
        })?;
        let (addr, shared, ca_pem, client, server, stop) = receiver.recv().map_err(io::Error::other)??;
        Ok(Self { addr, shared, ca_pem, client, server, _stop: stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `address:port` as it stands in references, such as `127.0.0.1:40001` or `[::1]:40001`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// `http://…` or `https://…`, without a slash at the end.
    pub fn url(&self) -> String {
        self.shared.lock().base_url.clone()
    }

    /// The text of a reference to `name` (with tag or digest) on this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.addr)
    }

    /// The CA that signed its certificate, if it speaks TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// A client's certificate and key in PEM, signed by its CA, if it speaks TLS.
    pub fn client_identity(&self) -> Option<(&str, &str)> {
        self.client.as_ref().map(|(cert, key)| (cert.as_str(), key.as_str()))
    }

    /// Its own certificate and key in PEM, for another server on loopback.
    pub fn server_identity(&self) -> Option<(&str, &str)> {
        self.server.as_ref().map(|(cert, key)| (cert.as_str(), key.as_str()))
    }

    /// Builds and stores an image; returns its manifest's digest.
    pub fn push_image(&self, image: &ImageBuilder) -> io::Result<Digest> {
        let built = image.build()?;
        self.push_built(&image.repo, image.tag.as_deref(), &built);
        Ok(built.digest)
    }

    /// Stores a finished image.
    pub fn push_built(&self, repo: &str, tag: Option<&str>, image: &BuiltImage) {
        for layer in &image.layers {
            // Under the digest it claims, so that a lie is served as told.
            self.put_blob_as(layer.digest.clone(), layer.blob.clone());
        }
        self.put_blob_as(image.config_digest.clone(), image.config.clone());
        self.put_manifest(repo, tag, &image.media_type, image.manifest.clone());
    }

    /// Stores images and an index over them; returns the index's digest.
    pub fn push_index(&self, repo: &str, tag: &str, images: &[ImageBuilder]) -> io::Result<Digest> {
        let built = images.iter().map(ImageBuilder::build).collect::<io::Result<Vec<_>>>()?;
        for image in &built {
            self.push_built(repo, None, image);
        }
        Ok(self.put_manifest(repo, Some(tag), OCI_INDEX, build_index(&built)?))
    }

    /// Stores a blob and returns its digest.
    pub fn put_blob(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.put_blob_as(digest.clone(), bytes);
        digest
    }

    /// Stores a blob under any digest, right or wrong.
    pub fn put_blob_as(&self, digest: Digest, bytes: impl Into<Bytes>) {
        self.shared.lock().blobs.insert(digest, bytes.into());
    }

    /// Forgets a blob.
    pub fn remove_blob(&self, digest: &Digest) {
        self.shared.lock().blobs.remove(digest);
    }

    /// Stores manifest bytes, whatever they are, and returns their digest.
    pub fn put_manifest(&self, repo: &str, tag: Option<&str>, media_type: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        let mut state = self.shared.lock();
        let entry = state.repos.entry(repo.to_owned()).or_default();
        entry.manifests.insert(digest.clone(), (media_type.to_owned(), bytes));
        if let Some(tag) = tag {
            entry.tags.insert(tag.to_owned(), digest.clone());
        }
        digest
    }

    /// The digest under a tag, such as after a push by a client.
    pub fn tag(&self, repo: &str, tag: &str) -> Option<Digest> {
        self.shared.lock().repos.get(repo)?.tags.get(tag).cloned()
    }

    /// Hands out a token with these grants, such as `repository:app:pull`, as the token server would.
    pub fn issue_token(&self, grants: &[&str]) -> String {
        let grants = grants.iter().map(|g| (*g).to_owned()).collect();
        self.shared.lock().issue(grants, 300)
    }

    /// Makes every token so far worthless.
    pub fn revoke_tokens(&self) {
        self.shared.lock().tokens.clear();
    }

    /// Misbehaves on every matching request from now on.
    pub fn inject(&self, when: When, fault: Fault) {
        self.shared.lock().rules.push(Rule { when, fault, remaining: None });
    }

    /// Misbehaves on the next `times` matching requests.
    pub fn inject_times(&self, when: When, fault: Fault, times: u32) {
        self.shared.lock().rules.push(Rule { when, fault, remaining: Some(times) });
    }

    /// Behaves again.
    pub fn clear_faults(&self) {
        self.shared.lock().rules.clear();
    }

    /// All requests so far, in order of their answers.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().log.clone()
    }

    /// How many requests matched.
    pub fn count(&self, when: &When) -> usize {
        let matches = |r: &&Request| r.method.parse().is_ok_and(|m| when.matches(&m, &r.path));
        self.shared.lock().log.iter().filter(matches).count()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.lock().log.clear();
    }

    /// Bytes of bodies sent so far.
    pub fn bytes_served(&self) -> u64 {
        self.shared.counters.bytes()
    }

    /// TCP connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.counters.connections()
    }

    /// How many of them spoke HTTP/2.
    pub fn h2_connections(&self) -> u64 {
        self.shared.counters.h2()
    }

    /// Most bodies under way at one time so far.
    pub fn peak_bodies(&self) -> u64 {
        self.shared.counters.peak()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The sender goes first, or the thread would wait for ever.
        let (sender, _) = oneshot::channel();
        drop(std::mem::replace(&mut self._stop, sender));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
