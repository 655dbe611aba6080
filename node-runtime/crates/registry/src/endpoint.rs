//! From registry names to URLs.
//!
//! Owns: aliases of Docker Hub, what loopback is, where a redirect may lead. Must not: connect.
use http::Uri;
use http::uri::Scheme;
use std::net::{IpAddr, Ipv6Addr};

/// Where Docker Hub answers the distribution API; its name in references is `docker.io`.
const HUB: &str = "registry-1.docker.io";

/// The `host[:port]` to connect to for the registry of a reference.
pub(crate) fn authority(host: &str) -> &str {
    if host == "docker.io" { HUB } else { host }
}

/// Whether a host (with or without a port) is this machine's loopback: 127.0.0.0/8, ::1 or `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.is_loopback(),
        Ok(IpAddr::V6(v6)) => v6 == Ipv6Addr::LOCALHOST,
        Err(_) => false,
    }
}

/// The host without its port; IPv6 addresses keep their brackets.
pub(crate) fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.split(':').next().unwrap_or(host)
}

/// Whether a server address (host or URL, as in Docker's configuration files) means the registry `host`.
pub(crate) fn same_registry(server_address: &str, host: &str) -> bool {
    registry_of(server_address) == registry_of(host)
}

/// The registry, as references name it, that a server address means.
pub fn registry_of(server_address: &str) -> String {
    let bare = server_address.split_once("://").map_or(server_address, |(_, rest)| rest);
    match bare.split('/').next().unwrap_or_default() {
        "index.docker.io" | HUB => "docker.io".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

/// `scheme://host:port` of a URL with the default port written out: what a credential is bound to.
pub(crate) fn origin(uri: &Uri) -> Option<String> {
    let scheme = uri.scheme()?;
    let authority = uri.authority()?;
    let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
    Some(format!("{scheme}://{}:{port}", authority.host().to_ascii_lowercase()))
}

/// A `Location` resolved against the URL it came from. `None`: not a URL that we would ever follow.
pub(crate) fn resolve_location(from: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        let uri: Uri = location.parse().ok()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        // User names in URLs are a way to hide where a URL leads.
        let clean = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        return (known && clean).then_some(uri);
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return resolve_location(from, &format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}").parse().ok();
    }
    let directory = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
    format!("{scheme}://{authority}{directory}/{location}").parse().ok()
}

/// Whether a redirect keeps the protection it started with: HTTPS never becomes HTTP, and HTTP leads only to HTTPS, to its own
/// origin, or from loopback to loopback.
pub(crate) fn may_redirect(from: &Uri, to: &Uri) -> bool {
    if to.scheme() == Some(&Scheme::HTTPS) {
        return true;
    }
    let both_loopback = [from, to].iter().all(|u| u.host().is_some_and(is_loopback));
    from.scheme() == Some(&Scheme::HTTP) && (both_loopback || origin(from) == origin(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_exactly_loopback() {
        for yes in ["127.0.0.1", "127.9.9.9:5000", "localhost", "LOCALHOST:5000", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["127.0.0.1.example", "localhost.example", "10.0.0.1", "[::2]:1", "128.0.0.1", "0.0.0.0", "[::]"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn locations_resolve_and_tricks_do_not() {
        let from: Uri = "https://r.example/v2/a/blobs/x".parse().unwrap();
        let to = |l: &str| resolve_location(&from, l).map(|u| u.to_string());
        assert_eq!(to("/p?q=1").unwrap(), "https://r.example/p?q=1");
        assert_eq!(to("y").unwrap(), "https://r.example/v2/a/blobs/y");
        assert_eq!(to("//cdn.example/z").unwrap(), "https://cdn.example/z");
        assert_eq!(to("http://other/z").unwrap(), "http://other/z");
        for bad in ["ftp://a/b", "file:///etc/passwd", "https://r.example@evil.example/", "https://"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }

    #[test]
    fn redirects_never_lose_tls() {
        let uri = |t: &str| t.parse::<Uri>().unwrap();
        let may = |a, b| may_redirect(&uri(a), &uri(b));
        assert!(may("https://a/", "https://b/"));
        assert!(may("http://a/", "https://b/"));
        assert!(may("http://a/", "http://a:80/x"));
        assert!(may("http://127.0.0.1:1/", "http://127.0.0.1:2/"));
        assert!(!may("https://a/", "http://a/"));
        assert!(!may("https://localhost/", "http://localhost/"));
        assert!(!may("http://a/", "http://b/"));
        assert!(!may("http://127.0.0.1/", "http://169.254.169.254/"));
        assert!(!may("http://a/", "http://127.0.0.1/"));
    }

    #[test]
    fn origins_write_out_ports() {
        let origin = |t: &str| origin(&t.parse().unwrap()).unwrap();
        assert_eq!(origin("https://A.example/x"), origin("https://a.example:443/"));
        assert_ne!(origin("https://a.example"), origin("http://a.example"));
        assert_ne!(origin("https://a.example"), origin("https://a.example:444"));
    }
}
