//! Where content of a registry may come from: its mirrors in order, then itself.
//!
//! Owns: the order, and what a mirror's URL means. Must not: connect, or decide what a failure is.
use crate::config::{ClientConfig, HostConfig, Mirror, MirrorCredentials, Tls};
use crate::endpoint;
use crate::health::Health;
use crate::observe::Place;
use berth_model::{Error, Reference, Result};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Uri};
use std::sync::Arc;

/// What is wanted of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Content by digest.
    Content,
    /// What a tag stands for.
    Tags,
}

/// One server that has content of a registry.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Host of the registry that the reference names.
    pub registry: String,
    /// URL of the mirror as configured; `None` is the registry itself.
    pub mirror: Option<String>,
    /// `host[:port]` to connect to.
    pub authority: String,
    /// `None` is found out (see `Transport::scheme`).
    pub scheme: Option<Scheme>,
    /// Path above the repositories: `/v2`, or with a prefix.
    pub root: String,
    /// What the root puts before a repository's name, for token scopes.
    pub prefix: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub tls: Tls,
    pub credentials: MirrorCredentials,
}

impl Site {
    /// The registry itself.
    pub fn registry(host: &str, settings: Option<&HostConfig>) -> Self {
        Self {
            registry: host.to_owned(),
            mirror: None,
            authority: endpoint::authority(host).to_owned(),
            scheme: settings.filter(|s| s.plain_http).map(|_| Scheme::HTTP),
            root: "/v2".into(),
            prefix: String::new(),
            headers: settings.map(|s| headers(&s.headers)).unwrap_or_default(),
            tls: settings.map(|s| s.tls.clone()).unwrap_or_default(),
            credentials: MirrorCredentials::Own,
        }
    }

    /// A mirror of a registry. Errors: `InvalidArgument` for a URL that is none.
    pub fn mirror(host: &str, mirror: &Mirror, config: &ClientConfig) -> Result<Self> {
        let (scheme, authority, path) = parse_url(&mirror.url)?;
        let own = config.hosts.get(&authority);
        let tls = if mirror.tls.is_set() { mirror.tls.clone() } else { own.map(|o| o.tls.clone()).unwrap_or_default() };
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let api = segments.iter().position(|s| *s == "v2");
        let (root, prefix) = match api {
            Some(at) => (segments.join("/"), segments[at + 1..].join("/")),
            None if segments.is_empty() => ("v2".to_owned(), String::new()),
            None => (format!("v2/{}", segments.join("/")), segments.join("/")),
        };
        Ok(Self {
            registry: host.to_owned(),
            mirror: Some(mirror.url.clone()),
            authority,
            scheme: Some(scheme),
            root: format!("/{root}"),
            prefix: if prefix.is_empty() { prefix } else { format!("{prefix}/") },
            headers: headers(&mirror.headers),
            tls,
            credentials: mirror.credentials,
        })
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        self.mirror.as_deref().unwrap_or(&self.registry)
    }

    /// In an error: a mirror is named with the registry that it stands for.
    pub fn place(&self) -> Place<'_> {
        Place { registry: &self.registry, mirror: self.mirror.as_deref() }
    }

    /// The image that credentials must be for, as `host/path`.
    pub fn credential_image(&self, repo: &Reference) -> String {
        match (&self.mirror, self.credentials) {
            (Some(_), MirrorCredentials::Own | MirrorCredentials::None) => {
                format!("{}/{}", self.authority, self.repository(repo))
            }
            _ => format!("{}/{}", self.registry, repo.path()),
        }
    }

    /// The repository as this site calls it.
    pub fn repository(&self, repo: &Reference) -> String {
        format!("{}{}", self.prefix, repo.path())
    }
}

/// Scheme, `host[:port]` and path of a mirror's URL. Errors: `InvalidArgument` naming what is wrong.
pub fn parse_url(url: &str) -> Result<(Scheme, String, String)> {
    let bad = |why: &str| Error::invalid("mirror url", format!("{url:?} {why}"));
    let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
    let scheme = uri.scheme().filter(|s| **s == Scheme::HTTP || **s == Scheme::HTTPS).cloned();
    let scheme = scheme.ok_or_else(|| bad("must begin with https:// or http://"))?;
    let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(Error::invalid(
            "mirror url",
            "must not hold a user name or password; use `berth login` for the mirror",
        ));
    }
    if uri.query().is_some() || url.contains('#') {
        return Err(bad("must not have a query or a fragment"));
    }
    if uri.path().split('/').any(|s| s == ".." || s == ".") {
        return Err(bad("must not have '.' or '..' in its path"));
    }
    Ok((scheme, authority.as_str().to_ascii_lowercase(), uri.path().to_owned()))
}

/// Headers that are valid; the settings' check has refused the others.
fn headers(pairs: &[(String, String)]) -> Vec<(HeaderName, HeaderValue)> {
    pairs.iter().filter_map(|(n, v)| Some((n.parse().ok()?, v.parse().ok()?))).collect()
}

/// The sites to ask, in order: mirrors that work, the registry, mirrors that failed a while ago.
pub(crate) fn sites(config: &ClientConfig, health: &Health, host: &str, need: Need) -> Result<Vec<Arc<Site>>> {
    let settings = config.host(host);
    let broken = settings.and_then(|s| s.unusable.as_ref()).or(config.proxy.unusable.as_ref());
    if let Some(problem) = broken {
        return Err(crate::error::unavailable(host, format!("cannot be used with these settings: {problem}")));
    }
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for mirror in settings.map(|s| s.mirrors.as_slice()).unwrap_or_default() {
        let able = match need {
            Need::Content => mirror.pull,
            Need::Tags => mirror.resolve,
        };
        if !able {
            continue;
        }
        let site = Arc::new(Site::mirror(host, mirror, config)?);
        match health.down_until(&mirror.url) {
            None => up.push(site),
            Some(until) => down.push((until, site)),
        }
    }
    down.sort_by_key(|(until, _)| *until);
    if !settings.is_some_and(|s| s.mirrors_only) {
        up.push(Arc::new(Site::registry(host, settings)));
    }
    up.extend(down.into_iter().map(|(_, site)| site));
    if up.is_empty() {
        let what = if need == Need::Tags { "resolve tags" } else { "serve content" };
        let text = format!(
            "no mirror may {what} and its fallback is Never; give a mirror the capability, or set fallback to Allow"
        );
        return Err(Error::invalid(format!("spec.registries[{host}]"), text));
    }
    Ok(up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_a_mirrors_url_means() {
        let root = |url: &str| {
            let site = Site::mirror("docker.io", &Mirror::new(url), &ClientConfig::default()).unwrap();
            (site.root, site.prefix)
        };
        let is = |root: &str, prefix: &str| (root.to_owned(), prefix.to_owned());
        assert_eq!(root("https://m.example"), is("/v2", ""));
        assert_eq!(root("https://m.example/"), is("/v2", ""));
        assert_eq!(root("https://m.example/v2"), is("/v2", ""));
        assert_eq!(root("https://m.example/hub/x"), is("/v2/hub/x", "hub/x/"));
        assert_eq!(root("https://m.example/v2/hub/"), is("/v2/hub", "hub/"));
        assert_eq!(root("https://m.example/api/docker/hub/v2"), is("/api/docker/hub/v2", ""));
        for bad in ["m.example", "ftp://m", "https://u:p@m", "https://m/?q", "https://m/a/../b", "https://", ""] {
            let e = parse_url(bad).unwrap_err();
            assert!(!e.message().contains("u:p"), "{e}");
        }
    }

    #[test]
    fn mirrors_come_first_and_failed_ones_last() {
        let mut settings =
            HostConfig { mirrors: vec![Mirror::new("http://a"), Mirror::new("http://b")], ..HostConfig::default() };
        settings.mirrors[1].resolve = false;
        let mut config = ClientConfig { hosts: [("r.io".to_owned(), settings)].into(), ..ClientConfig::default() };
        let health = Health::default();
        let names = |config: &ClientConfig, health: &Health, need| {
            let sites = sites(config, health, "r.io", need)?;
            Ok::<_, Error>(sites.iter().map(|s| s.name().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(names(&config, &health, Need::Content).unwrap(), ["http://a", "http://b", "r.io"]);
        assert_eq!(names(&config, &health, Need::Tags).unwrap(), ["http://a", "r.io"]);
        health.failed("http://a", Duration::from_secs(5));
        assert_eq!(names(&config, &health, Need::Content).unwrap(), ["http://b", "r.io", "http://a"]);
        let settings = config.hosts.get_mut("r.io").unwrap();
        settings.mirrors_only = true;
        assert_eq!(names(&config, &health, Need::Content).unwrap(), ["http://b", "http://a"]);
        config.hosts.get_mut("r.io").unwrap().mirrors[0].resolve = false;
        assert!(names(&config, &health, Need::Tags).unwrap_err().message().contains("fallback is Never"));
    }
}
