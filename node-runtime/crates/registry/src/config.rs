//! What a [`Client`](crate::Client) is told: hosts, times, limits.
//!
//! Owns: the values and their defaults. Must not: read files; certificates arrive as text.
use crate::retry::RetryPolicy;
use std::collections::BTreeMap;
use std::time::Duration;

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Per registry, keyed as in references: `docker.io`, `registry.example:5000`, `[::1]:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Largest manifest or index read, in bytes.
    pub max_manifest_bytes: usize,
    /// `User-Agent`.
    pub user_agent: String,
}

/// Settings of one registry. The default: HTTPS with the system's certificates; on loopback, plain HTTP where TLS does not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Certificates (PEM) trusted in addition to the system's. Setting one means HTTPS, on loopback too.
    pub ca_pem: Vec<String>,
    /// Accept any certificate. Digests given by the user still protect content; tags and credentials are not protected.
    pub insecure_skip_verify: bool,
    /// Speak plain HTTP. No credential is sent unless the host is loopback.
    pub plain_http: bool,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// From the start of a request until its headers, connection and TLS included.
    pub header: Duration,
    /// For the next bytes of a body; a body that brings less than 4 KiB in this time has stalled.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let [connect, header, stall] = [10, 30, 30].map(Duration::from_secs);
        Self { connect, header, stall }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            max_manifest_bytes: 4 << 20,
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
