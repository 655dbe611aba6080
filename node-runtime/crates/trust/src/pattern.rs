//! Patterns over image references. Two forms: [`Pattern`] for `match.images` and `match.exclude`, [`Scope`] for registry lists.
use berth_model::{Error, Reference, Result};

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 512;

/// Host part: every label literal or `*`; a lone `*` is any host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    Labels(Vec<String>),
}

impl Host {
    fn parse(text: &str) -> Result<Self> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let plausible = text == "localhost" || text.contains(['.', ':']) || text.starts_with('[');
        if !plausible {
            let problem =
                format!("{text:?} is not a registry host; write the whole name, such as docker.io/library/{text}");
            return Err(Error::invalid("pattern", problem));
        }
        let labels: Vec<String> = text.split('.').map(str::to_owned).collect();
        if labels.iter().any(|l| l.is_empty() || (l.contains('*') && l != "*")) {
            return Err(Error::invalid("pattern", format!("in host {text:?} a * must stand for a whole label")));
        }
        Ok(Self::Labels(labels))
    }

    fn matches(&self, host: &str) -> bool {
        let Self::Labels(labels) = self else { return true };
        let have: Vec<&str> = host.split('.').collect();
        labels.len() == have.len() && labels.iter().zip(have).all(|(want, have)| want == "*" || want == have)
    }
}

fn components(path: &str) -> Result<Vec<String>> {
    let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    if parts.iter().any(|p| p.is_empty() || (p.contains('*') && p != "*")) {
        return Err(Error::invalid("pattern", format!("in path {path:?} a * must stand for a whole component")));
    }
    Ok(parts)
}

fn bounded(text: &str) -> Result<()> {
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(Error::invalid("pattern", format!("must be 1 to {MAX_PATTERN} bytes long")));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(Error::invalid("pattern", format!("{text:?} begins with {scheme}://; write {rest} alone")));
    }
    Ok(())
}

/// `host[/path][:tag|@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    host: Host,
    path: Option<Vec<String>>,
    tag: Option<String>,
    digest: Option<String>,
}

impl Pattern {
    /// Parses. Errors: `InvalidArgument` saying what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        bounded(text)?;
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once('/') {
            Some((_, last)) if last.contains(':') => match rest.rsplit_once(':') {
                Some((name, tag)) => (name, Some(tag.to_owned())),
                None => (rest, None),
            },
            _ => (rest, None),
        };
        let (host, path) = match rest.split_once('/') {
            Some((host, path)) => (host, Some(components(path)?)),
            None => (rest, None),
        };
        Ok(Self { host: Host::parse(host)?, path, tag, digest })
    }

    /// Whether a reference is meant.
    pub fn matches(&self, reference: &Reference) -> bool {
        let tag = |want: &String| want == "*" || reference.tag().is_some_and(|t| t.as_str() == want);
        let digest = |want: &String| want == "*" || reference.digest().is_some_and(|d| d.as_str() == want);
        self.host.matches(reference.host())
            && self.path.as_ref().is_none_or(|path| path_matches(path, reference.path()))
            && self.tag.as_ref().is_none_or(tag)
            && self.digest.as_ref().is_none_or(digest)
    }
}

/// A `*` is one component; as the last one it is all that follows.
fn path_matches(want: &[String], path: &str) -> bool {
    let have: Vec<&str> = path.split('/').collect();
    let open_end = want.last().is_some_and(|w| w == "*");
    let enough = if open_end { have.len() >= want.len() } else { have.len() == want.len() };
    enough && want.iter().zip(&have).all(|(want, have)| want == "*" || want == have)
}

/// `host[/path]` of a registry list: everything at it and below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    text: String,
    host: Host,
    path: Vec<String>,
}

impl Scope {
    /// Parses. Errors: `InvalidArgument` saying what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        bounded(text)?;
        let (host, path) = match text.split_once('/') {
            Some((host, path)) => (host, components(path.trim_end_matches('/'))?),
            None => (text, Vec::new()),
        };
        if path.iter().any(|p| p.contains([':', '@'])) {
            return Err(Error::invalid("pattern", format!("{text:?} must not have a tag or digest")));
        }
        Ok(Self { text: text.to_owned(), host: Host::parse(host)?, path })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a reference lies inside.
    pub fn contains(&self, reference: &Reference) -> bool {
        let have: Vec<&str> = reference.path().split('/').collect();
        self.host.matches(reference.host())
            && have.len() >= self.path.len()
            && self.path.iter().zip(have).all(|(want, have)| want == "*" || want == have)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_whole_labels_and_components() {
        let cases = [
            ("*", "busybox", true),
            ("docker.io", "busybox", true),
            ("docker.io/library/*", "busybox", true),
            ("docker.io/library", "busybox", false),
            ("*.example.com/app", "eu.example.com/app", true),
            ("*.example.com/app", "a.eu.example.com/app", false),
            ("example.com/*/app", "example.com/team/app", true),
            ("example.com/*/app", "example.com/a/b/app", false),
            ("example.com/team/*", "example.com/team/a/b", true),
            ("example.com/team/*", "example.com/teams/a", false),
            ("example.com/app:v1", "example.com/app:v1", true),
            ("example.com/app:v1", "example.com/app:v2", false),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:x", true),
            ("127.0.0.1:5000", "127.0.0.1:5001/app", false),
        ];
        for (pattern, image, expected) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&reference(image)), expected, "{pattern} on {image}");
        }
    }

    #[test]
    fn scopes_end_at_component_boundaries() {
        let cases = [
            ("example.com", "example.com/a/b", true),
            ("example.com/team", "example.com/team/app", true),
            ("example.com/team", "example.com/team", true),
            ("example.com/team", "example.com/team2/app", false),
            ("example.com", "example.com.evil.org/a", false),
            ("example.com", "evil-example.com/a", false),
        ];
        for (scope, image, expected) in cases {
            assert_eq!(Scope::parse(scope).unwrap().contains(&reference(image)), expected, "{scope} on {image}");
        }
    }

    #[test]
    fn loose_patterns_are_refused() {
        for bad in ["", "busybox", "exam*ple.com", "example.com/a*", "example.com//a", &"a".repeat(600)] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
            assert!(Scope::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Scope::parse("example.com/app:v1").is_err());
        let told = Scope::parse("https://example.com/team").unwrap_err().to_string();
        assert!(told.contains("write example.com/team alone"), "{told}");
    }
}
