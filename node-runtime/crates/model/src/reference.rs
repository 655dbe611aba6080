//! Image references as people write them: `[host[:port]/]path[:tag][@digest]`.
//!
//! Grammar: distribution spec ("Pulling manifests") with the peers' familiar names: without a host the registry is
//! `docker.io`, a single path component there lives below `library/`, and no tag and no digest means `latest`.
use crate::{Digest, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest `host/path` accepted (the distribution grammar's own limit).
const NAME_MAX: usize = 255;
const DEFAULT_HOST: &str = "docker.io";

/// A tag: a word character, then up to 127 of `[A-Za-z0-9_.-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// Parses a tag. Errors: `InvalidArgument`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= 128 {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid("image tag", "must match [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"))
        }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tag {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Tag> for String {
    fn from(t: Tag) -> String {
        t.0
    }
}

/// A complete, normalised reference. It always has a host and a path, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises. Errors: `InvalidArgument` naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|e| e.context("image reference"))?)),
            None => (text, None),
        };
        let last_slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[last_slash..].find(':') {
            Some(colon) => (&rest[..last_slash + colon], Some(Tag::parse(&rest[last_slash + colon + 1..])?)),
            None => (rest, None),
        };
        let (host, path) = split_host(name);
        check_host(&host)?;
        check_path(&path)?;
        if host.len() + 1 + path.len() > NAME_MAX {
            return Err(Error::invalid("image reference", format!("name is longer than {NAME_MAX} bytes")));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(Tag("latest".into())),
            (tag, _) => tag,
        };
        Ok(Self { host, path, tag, digest })
    }

    /// Registry host with its port, such as `docker.io` or `127.0.0.1:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Repository path on the registry, without the host.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was written or defaulted.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `host/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The same repository by digest alone, as the CRI's RepoDigests show it.
    #[must_use]
    pub fn with_digest_only(&self, digest: Digest) -> Self {
        Self { host: self.host.clone(), path: self.path.clone(), tag: None, digest: Some(digest) }
    }

    /// The same reference without its digest; `None` when it has no tag.
    pub fn tag_only(&self) -> Option<Self> {
        self.tag.as_ref()?;
        Some(Self { digest: None, ..self.clone() })
    }
}

fn split_host(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" || host.starts_with('[') => {
            let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
            let path =
                if host == DEFAULT_HOST && !path.contains('/') { format!("library/{path}") } else { path.into() };
            (host.to_owned(), path)
        }
        Some(_) => (DEFAULT_HOST.to_owned(), name.to_owned()),
        None => (DEFAULT_HOST.to_owned(), format!("library/{name}")),
    }
}

fn check_host(host: &str) -> Result<()> {
    let bad = |problem| Err(Error::invalid("image reference", format!("registry host {host:?} {problem}")));
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((addr, rest)) if addr.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest.strip_prefix(':')),
            _ => return bad("is not an IPv6 address in brackets"),
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if let Some(port) = port
        && (port.is_empty() || port.len() > 5 || port.parse::<u16>().is_err())
    {
        return bad("has no valid port");
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.split('.').all(label) { Ok(()) } else { bad("is not a host name") }
}

fn check_path(path: &str) -> Result<()> {
    let component = |c: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(c.bytes().next())
            && edge(c.bytes().last())
            && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && !c.contains("..")
            && !c.contains("___")
            && !c.contains("._")
            && !c.contains("_.")
    };
    if path.split('/').all(component) {
        Ok(())
    } else {
        Err(Error::invalid(
            "image reference",
            format!("repository path {path:?} must be lower-case letters and digits, parts joined by . _ __ - or /"),
        ))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{}", tag.as_str())?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(r: Reference) -> String {
        r.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn familiar_names_are_completed() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("team/app:v1", "docker.io/team/app:v1"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b_c/d-e:T.1-x", "127.0.0.1:5000/a/b_c/d-e:T.1-x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("ghcr.io/a/b__c", "ghcr.io/a/b__c:latest"),
        ];
        for (written, full) in cases {
            assert_eq!(Reference::parse(written).unwrap().to_string(), full);
        }
        let by_digest = Reference::parse(&format!("app@{digest}")).unwrap();
        assert_eq!(by_digest.to_string(), format!("docker.io/library/app@{digest}"));
        assert!(by_digest.tag().is_none());
        let both = Reference::parse(&format!("app:v1@{digest}")).unwrap();
        assert_eq!(both.tag().unwrap().as_str(), "v1");
        assert_eq!(both.tag_only().unwrap().to_string(), "docker.io/library/app:v1");
    }

    #[test]
    fn wrong_references_are_refused() {
        let long = format!("a/{}", "b".repeat(300));
        let bad = [
            "",
            "/",
            "a//b",
            "A",
            "host.io/",
            ":tag",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a b",
            "../a",
            "a/../b",
            "host.io:x/a",
            "host.io:99999/a",
            "-h.io/a",
            "[::g]/a",
            "a\n",
            "host.io/a_",
            &long,
            "a@",
            "a@sha256:ABC",
            "ho_st.io/a",
        ];
        for text in bad {
            assert!(Reference::parse(text).is_err(), "{text:?} was taken for a reference");
        }
    }

    proptest! {
        #[test]
        fn what_parses_round_trips(text in "\\PC{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
