//! The handle that the rest of the node holds.
//!
//! Owns: construction. Must not: grow; each use case has a file of its own.
use crate::config::ClientConfig;
use crate::exchange::Exchange;
use crate::tls;
use crate::token::Cache;
use crate::transport::Transport;
use berth_model::Result;
use std::sync::Arc;

/// A registry client. Clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Transport,
    cache: Cache,
}

impl Client {
    /// A client with these settings; connects to nothing yet. Errors: `InvalidArgument` naming a registry whose certificates
    /// cannot be read.
    pub fn new(config: ClientConfig) -> Result<Self> {
        for (host, settings) in &config.hosts {
            tls::check(host, settings)?;
        }
        Ok(Self(Arc::new(Inner { transport: Transport::new(config), cache: Cache::default() })))
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.0.transport.config
    }

    pub(crate) fn exchange(&self) -> Exchange<'_> {
        Exchange { transport: &self.0.transport, cache: &self.0.cache }
    }
}
