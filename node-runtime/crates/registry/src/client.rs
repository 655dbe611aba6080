//! The handle that the rest of the node holds.
//!
//! Owns: construction, and the walk over the sites of a registry. Must not: grow; each use case has a file of its own.
use crate::config::ClientConfig;
use crate::error::Failure;
use crate::exchange::Exchange;
use crate::observe::Observation;
use crate::site::{self, Need, Site};
use crate::tls;
use crate::token::Cache;
use crate::transport::Transport;
use berth_model::{Error, ErrorKind, Reference, Result};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// A registry client. Clones share connections, tokens, and what is known of mirrors.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Transport,
    cache: Cache,
    buffers: Arc<Semaphore>,
}

impl Client {
    /// A client with these settings; connects to nothing yet. Errors: `InvalidArgument` naming a registry whose certificates
    /// cannot be read, or a mirror whose URL is none.
    pub fn new(config: ClientConfig) -> Result<Self> {
        for (host, settings) in &config.hosts {
            tls::check(host, &settings.tls)?;
            for mirror in &settings.mirrors {
                Site::mirror(host, mirror, &config)?;
                tls::check(&mirror.url, &mirror.tls)?;
            }
        }
        let transfer = config.transfer;
        let ranges = transfer.buffer_bytes / transfer.range_bytes.max(1);
        let buffers =
            Arc::new(Semaphore::new(usize::try_from(ranges).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
        Ok(Self(Arc::new(Inner { transport: Transport::new(config), cache: Cache::default(), buffers })))
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.0.transport.config
    }

    /// Remembers against a mirror that content of it was not what its digest says: it is left alone for a while.
    pub fn blame(&self, repo: &Reference, mirror: &str) {
        let settings = self.config().host(repo.host());
        if let Some(mirror) = settings.and_then(|s| s.mirrors.iter().find(|m| m.url == mirror))
            && let Ok(site) = Site::mirror(repo.host(), mirror, self.config())
        {
            let pause = self.0.transport.health.lied(&mirror.url, self.config().timeouts.mirror_pause);
            self.tell_pause(&site, pause, "served content of another digest");
        }
    }

    pub(crate) fn exchange(&self) -> Exchange<'_> {
        Exchange { transport: &self.0.transport, cache: &self.0.cache }
    }

    pub(crate) fn tell(&self, observation: &Observation<'_>) {
        self.0.transport.tell(observation);
    }

    /// Memory for ranges that arrive before their turn.
    pub(crate) fn buffers(&self) -> &Arc<Semaphore> {
        &self.0.buffers
    }

    pub(crate) fn sites(&self, host: &str, need: Need) -> Result<Vec<Arc<Site>>> {
        site::sites(self.config(), &self.0.transport.health, host, need)
    }

    /// The registry itself, whatever mirrors there are: where things are pushed.
    pub(crate) fn home(&self, host: &str) -> Site {
        Site::registry(host, self.config().host(host))
    }

    /// Remembers how a site did. It worked where all that was asked for has come.
    pub(crate) fn note(&self, site: &Site, result: Result<(), &Error>) {
        let Some(mirror) = &site.mirror else { return };
        match result {
            Ok(()) => self.0.transport.health.worked(mirror),
            Err(e) => match e.kind() {
                // That it lacks something, or does not give it out, is no reason to leave it alone.
                ErrorKind::NotFound | ErrorKind::PermissionDenied => {}
                // The image is at fault; it is the same everywhere.
                ErrorKind::InvalidArgument | ErrorKind::ResourceExhausted => {}
                _ => self.pause_mirror(site, e.message()),
            },
        }
    }

    fn pause_mirror(&self, site: &Site, reason: &str) {
        let Some(mirror) = &site.mirror else { return };
        let pause = self.0.transport.health.failed(mirror, self.config().timeouts.mirror_pause);
        self.tell_pause(site, pause, reason);
    }

    fn tell_pause(&self, site: &Site, pause: std::time::Duration, reason: &str) {
        let Some(mirror) = &site.mirror else { return };
        tracing::warn!(registry = site.registry, mirror, reason, pause_ms = pause.as_millis(), "mirror is left alone");
        self.tell(&Observation::MirrorPaused { place: site.place(), pause, reason });
    }

    /// Tries the sites of a registry in order until one answers. A mirror that has another site behind it gets one attempt.
    pub(crate) async fn across<T, F>(&self, host: &str, need: Need, attempt: impl Fn(Arc<Site>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let sites = self.sites(host, need)?;
        let mut troubles = Troubles::default();
        for (at, site) in sites.iter().enumerate() {
            let alone = site.mirror.is_none() || at + 1 == sites.len();
            let policy = self.config().retry.with_attempts(if alone { u32::MAX } else { 1 });
            let told = || self.tell(&Observation::Retry { place: site.place() });
            match policy.run(site.name(), told, || attempt(Arc::clone(site))).await {
                Ok(value) => {
                    self.note(site, Ok(()));
                    return Ok(value);
                }
                Err(e) => {
                    self.note(site, Err(&e));
                    troubles.add(site, e);
                }
            }
        }
        Err(troubles.verdict(host))
    }
}

/// What went wrong at each site.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    own: Option<Error>,
    mirrors: Vec<(String, Error)>,
}

impl Troubles {
    pub fn add(&mut self, site: &Site, e: Error) {
        match &site.mirror {
            None => self.own = Some(e),
            Some(mirror) => self.mirrors.push((mirror.clone(), e)),
        }
    }

    /// One error for all: the registry's own word, else that of the mirror which tells most; the others are named behind.
    pub fn verdict(mut self, host: &str) -> Error {
        if let Some(own) = self.own {
            if self.mirrors.is_empty() {
                return own;
            }
            return Error::new(own.kind(), format!("{}; its mirrors: {}", own.message(), listed(&self.mirrors)));
        }
        let lasting = |e: &Error| !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
        let at = self.mirrors.iter().position(|(_, e)| lasting(e)).unwrap_or(self.mirrors.len().saturating_sub(1));
        if self.mirrors.is_empty() {
            return Error::internal(format!("registry {host} has no site"));
        }
        let (_, e) = self.mirrors.remove(at);
        let behind =
            if self.mirrors.is_empty() { String::new() } else { format!("; other mirrors: {}", listed(&self.mirrors)) };
        Error::new(e.kind(), format!("{}; the registry itself is not asked (fallback: Never){behind}", e.message()))
    }
}

fn listed(mirrors: &[(String, Error)]) -> String {
    let each: Vec<_> = mirrors.iter().map(|(mirror, e)| format!("{mirror} ({})", e.message())).collect();
    each.join(", ")
}
