//! Proxies: which one a URL goes through, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say it.
//!
//! Owns: the settings, their parsing, and the choice. Must not: connect. A proxy's password is never shown.
//! Source: the conventions of Go's `golang.org/x/net/http/httpproxy`, which the peers use: hosts and suffixes, addresses, CIDRs,
//! ports, `*`; loopback is never sent through a proxy.
use crate::endpoint;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_model::{Error, Result};
use http::Uri;
use http::uri::Scheme;
use ipnet::IpNet;
use std::net::IpAddr;

/// Longest list of exceptions in bytes.
const MAX_NO_PROXY: usize = 64 << 10;

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`.
    pub authority: String,
    /// `user:password`, if it wants them.
    pub credentials: Option<Secret>,
}

impl Proxy {
    /// Reads `http://[USER:PASSWORD@]HOST[:PORT]`; a text without a scheme is taken for `http://`. `field` names it in errors,
    /// which do not show the text. Errors: `InvalidArgument`.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(field, why);
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|_| bad("is not a URL of the form http://HOST:PORT"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(bad("must begin with http://; other kinds of proxies are not supported"));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        if authority.host().is_empty() {
            return Err(bad("has no host"));
        }
        let port = authority.port_u16().unwrap_or(80);
        let credentials = user.map(|u| {
            let (name, password) = u.split_once(':').unwrap_or((u, ""));
            Secret::from(format!("{}:{}", percent_decoded(name), percent_decoded(password)))
        });
        Ok(Self { authority: format!("{}:{port}", endpoint::without_port(host)), credentials })
    }

    /// The value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Option<Secret> {
        let credentials = self.credentials.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(credentials.expose())).into())
    }
}

/// The proxies of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// For `http://` URLs.
    pub http: Option<Proxy>,
    /// For `https://` URLs, by CONNECT.
    pub https: Option<Proxy>,
    /// Who is reached directly.
    pub exceptions: NoProxy,
    /// Why these settings cannot be applied: nothing is sent past a proxy that should have been.
    pub unusable: Option<String>,
}

impl ProxyConfig {
    /// From the environment, upper case before lower case as Go has it. `get` is `std::env::var`. Errors: `InvalidArgument` naming
    /// the variable.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let value = |name: &str| {
            [name.to_owned(), name.to_ascii_lowercase()]
                .iter()
                .find_map(|n| get(n).filter(|v| !v.trim().is_empty()))
                .map(|v| v.trim().to_owned())
        };
        let proxy = |name: &str| value(name).map(|v| Proxy::parse(name, &v)).transpose();
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exceptions: NoProxy::parse(&value("NO_PROXY").unwrap_or_default()),
            unusable: None,
        })
    }

    /// The proxy that a URL goes through.
    pub fn choose(&self, uri: &Uri) -> Option<&Proxy> {
        let proxy = if uri.scheme() == Some(&Scheme::HTTPS) { &self.https } else { &self.http }.as_ref()?;
        let host = uri.host()?;
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        (!endpoint::is_loopback(host) && !self.exceptions.matches(host, port)).then_some(proxy)
    }
}

/// Hosts that are reached directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// A name, and whether only what is below it is meant.
    Name {
        name: String,
        below: bool,
        port: Option<u16>,
    },
}

impl NoProxy {
    /// Reads a list with commas. What cannot be read is left out, as everywhere.
    pub fn parse(text: &str) -> Self {
        if text.len() > MAX_NO_PROXY {
            return Self::default();
        }
        Self(text.split([',', ' ']).filter_map(exception).collect())
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.0.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network) => address.is_some_and(|a| network.contains(&a)),
            Exception::Address(own, wanted) => address == Some(*own) && wanted.is_none_or(|w| w == port),
            Exception::Name { name, below, port: wanted } => {
                let under = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (under || (!below && host == *name)) && wanted.is_none_or(|w| w == port)
            }
        })
    }
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Exception::All);
    }
    if text.contains('/') {
        return text.parse().ok().map(Exception::Network);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Some(Exception::Address(address, None));
    }
    let name = endpoint::without_port(&text);
    let port = match text[name.len()..].strip_prefix(':') {
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Some(Exception::Address(address, port));
    }
    let below = name.starts_with('.') || name.starts_with("*.");
    let name = name.trim_start_matches('*').trim_start_matches('.').to_owned();
    (!name.is_empty()).then_some(Exception::Name { name, below, port })
}

/// `%41` to `A`; what is no such code stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(pairs: &[(&str, &str)]) -> ProxyConfig {
        ProxyConfig::from_env(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())).unwrap()
    }

    #[test]
    fn the_environment_is_read_as_elsewhere() {
        let found = config(&[("https_proxy", "http://us%40r:p%3Aw@proxy.example"), ("HTTP_PROXY", "proxy:3128")]);
        assert_eq!(found.http.as_ref().unwrap().authority, "proxy:3128");
        let https = found.https.as_ref().unwrap();
        assert_eq!(https.authority, "proxy.example:80");
        assert_eq!(https.credentials.as_ref().unwrap().expose(), "us@r:p:w");
        assert!(!format!("{found:?}").contains("p:w"));
        let e = ProxyConfig::from_env(|_| Some("socks5://u:sesame@p".into())).unwrap_err();
        assert!(e.message().contains("HTTP_PROXY") && !e.message().contains("sesame"), "{e}");
    }

    #[test]
    fn exceptions_match_hosts_suffixes_networks_and_ports() {
        let exceptions = "a.example, .b.example,*.c.example 10.0.0.0/8,192.0.2.7,d.example:5000,[2001:db8::1],fd00::/8";
        let found = config(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", exceptions)]);
        let direct = |url: &str| found.choose(&url.parse().unwrap()).is_none();
        for url in [
            "https://a.example/",
            "https://x.A.example/",
            "https://x.b.example/",
            "https://x.c.example/",
            "https://10.1.2.3/",
            "https://192.0.2.7:8/",
            "https://d.example:5000/",
            "https://[2001:db8::1]/",
            "https://[fd00::5]/",
            "https://localhost/",
            "https://127.0.0.9:1/",
        ] {
            assert!(direct(url), "{url}");
        }
        for url in [
            "https://b.example/",
            "https://xa.example/",
            "https://11.0.0.1/",
            "https://d.example/",
            "https://192.0.2.8/",
            "https://[::2]/",
        ] {
            assert!(!direct(url), "{url}");
        }
        assert!(direct("http://b.example/"), "no proxy for plain HTTP is set");
        assert!(config(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "*")]).choose(&"https://b".parse().unwrap()).is_none());
    }

    proptest! {
        #[test]
        fn any_list_and_any_url_are_survived(list in "[ -~]{0,80}", host in "[a-z0-9.]{1,20}") {
            NoProxy::parse(&list).matches(&host, 443);
            let _ = Proxy::parse("p", &list);
        }
    }
}
