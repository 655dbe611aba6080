//! What a [`Client`](crate::Client) is told: hosts, mirrors, proxies, times, limits.
//!
//! Owns: the values and their defaults, and which settings a host has. Must not: read files; certificates arrive as text.
use crate::credentials::Keychain;
use crate::endpoint;
use crate::observe::Observer;
use crate::proxy::ProxyConfig;
use crate::retry::RetryPolicy;
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Per registry, keyed as in references: `docker.io`, `registry.example:5000`, `[::1]:5000`; or by a pattern, `*.example`,
    /// `*.example:5000`, `*`. See [`ClientConfig::host`].
    pub hosts: BTreeMap<String, HostConfig>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// How large blobs are fetched.
    pub transfer: Transfer,
    /// Proxies between here and the registries.
    pub proxy: ProxyConfig,
    /// The node's own credentials, asked where a request brings none.
    pub keychain: Arc<Keychain>,
    /// Who is told what happens.
    pub observer: Option<Arc<dyn Observer>>,
    /// Largest manifest or index read, in bytes.
    pub max_manifest_bytes: usize,
    /// `User-Agent`.
    pub user_agent: String,
}

/// Settings of one registry. The default: HTTPS with the system's certificates; on loopback, plain HTTP where TLS does not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// TLS. Any setting of it means HTTPS, on loopback too.
    pub tls: Tls,
    /// Speak plain HTTP. No credential is sent unless the host is loopback.
    pub plain_http: bool,
    /// Headers sent with every request to this registry; no secrets, they are shown.
    pub headers: Vec<(String, String)>,
    /// Where to look first, in order.
    pub mirrors: Vec<Mirror>,
    /// Whether the registry itself is never asked: the mirrors are all there is.
    pub mirrors_only: bool,
    /// Why these settings cannot be applied: each request for the registry fails with these words.
    pub unusable: Option<String>,
}

/// TLS with one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates (PEM) trusted in addition to the system's.
    pub ca_pem: Vec<String>,
    /// What this node shows of itself.
    pub client: Option<ClientIdentity>,
    /// The name that the server's certificate must have, if not the one in its URL.
    pub server_name: Option<String>,
    /// Accept any certificate. Digests given by the user still protect content; tags and credentials are not protected.
    pub insecure_skip_verify: bool,
}

impl Tls {
    /// Whether anything is set.
    pub(crate) fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

/// A client certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Certificate chain in PEM.
    pub cert_pem: String,
    /// Private key in PEM.
    pub key_pem: Secret,
}

/// A server that has content of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `https://HOST[:PORT][/PATH]`, or `http:`. A path with a segment `v2` is the root of the distribution API as it stands; any
    /// other is put before the repository's name, below `/v2`.
    pub url: String,
    /// Whether it has content: manifests by digest, and blobs.
    pub pull: bool,
    /// Whether its word is taken for what a tag stands for.
    pub resolve: bool,
    /// TLS; unset is what is set for the mirror's own host.
    pub tls: Tls,
    /// Headers sent with every request to this mirror.
    pub headers: Vec<(String, String)>,
    /// Whose credentials it is shown.
    pub credentials: MirrorCredentials,
}

impl Mirror {
    /// A mirror with both capabilities and its own credentials.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pull: true,
            resolve: true,
            tls: Tls::default(),
            headers: Vec::new(),
            credentials: MirrorCredentials::default(),
        }
    }
}

/// Whose credentials a mirror is shown when it asks for some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MirrorCredentials {
    /// Those for the mirror's own host.
    #[default]
    Own,
    /// Those for the registry that it mirrors, the request's too.
    Registry,
    /// None.
    None,
}

/// How large blobs are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Connections for one blob; 1 is one after the other.
    pub connections: u32,
    /// Bytes of one range.
    pub range_bytes: u64,
    /// Smaller blobs are fetched in one piece.
    pub min_bytes: u64,
    /// Bytes that may wait in memory for those before them, in all blobs together.
    pub buffer_bytes: u64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { connections: 4, range_bytes: 4 << 20, min_bytes: 16 << 20, buffer_bytes: 64 << 20 }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// From the start of a request until its headers, connection and TLS included.
    pub header: Duration,
    /// For the next bytes of a body, and the window in which `stall_bytes` must come.
    pub stall: Duration,
    /// A body that brings fewer bytes than this in the time of `stall` has stalled.
    pub stall_bytes: u64,
    /// First time that a mirror which failed is left alone; it doubles with each further failure, to 64 times this.
    pub mirror_pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let [connect, header, stall, mirror_pause] = [10, 30, 30, 5].map(Duration::from_secs);
        Self { connect, header, stall, stall_bytes: 4 << 10, mirror_pause }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            transfer: Transfer::default(),
            proxy: ProxyConfig::default(),
            keychain: Arc::default(),
            observer: None,
            max_manifest_bytes: 4 << 20,
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl ClientConfig {
    /// The settings of a host: its own; else those of the longest pattern `*.DOMAIN[:PORT]` that it ends with (at any depth, and
    /// with this port or none as the pattern says); else those of `*`.
    pub fn host(&self, host: &str) -> Option<&HostConfig> {
        if let Some(own) = self.hosts.get(host) {
            return Some(own);
        }
        let (name, port) = split_port(host);
        let matches = |pattern: &str| {
            let Some(domain) = pattern.strip_prefix('*').filter(|d| d.starts_with('.')) else { return false };
            let (domain, wanted) = split_port(domain);
            port == wanted && name.len() > domain.len() && name.to_ascii_lowercase().ends_with(domain)
        };
        let found = self.hosts.iter().filter(|(pattern, _)| matches(pattern)).max_by_key(|(pattern, _)| pattern.len());
        found.map(|(_, settings)| settings).or_else(|| self.hosts.get("*"))
    }
}

/// A host and its port, if it has one.
fn split_port(host: &str) -> (&str, Option<&str>) {
    let name = endpoint::without_port(host);
    (name, host[name.len()..].strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_settings_win() {
        let mut config = ClientConfig::default();
        for host in ["*", "*.example", "*.eu.example", "*.example:5000", "r.example"] {
            let settings = HostConfig { headers: vec![("x".into(), host.into())], ..HostConfig::default() };
            config.hosts.insert(host.to_owned(), settings);
        }
        let of = |host: &str| config.host(host).unwrap().headers[0].1.as_str();
        assert_eq!(of("r.example"), "r.example");
        assert_eq!(of("a.example"), "*.example");
        assert_eq!(of("a.b.example"), "*.example");
        assert_eq!(of("A.EU.example"), "*.eu.example");
        assert_eq!(of("r.example:5000"), "*.example:5000");
        assert_eq!(of("r.example:5001"), "*");
        assert_eq!(of("example"), "*");
        assert_eq!(of("[::1]:5000"), "*");
        config.hosts.remove("*");
        assert!(config.host("badexample").is_none() && config.host(".example").is_none());
    }
}
