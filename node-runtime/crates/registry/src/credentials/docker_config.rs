//! Docker's `config.json`: `auths`, `credsStore`, `credHelpers`. What else stands in it is kept when it is written.
//!
//! Owns: reading and writing it. Must not: ask helpers.
use super::{host_and_path, matching};
use crate::auth::Auth;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_model::{Error, Result, ResultExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest file that is read.
pub const MAX_FILE: usize = 1 << 20;
/// The key of Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The key that the credentials of a registry have, in files and with helpers.
pub fn config_key(host: &str) -> String {
    if host == "docker.io" { HUB_KEY.to_owned() } else { host.to_owned() }
}

/// One file.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    creds_store: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Default, Deserialize, Serialize)]
struct Entry {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(default, rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    identity_token: String,
    #[serde(default, rename = "registrytoken", skip_serializing_if = "String::is_empty")]
    registry_token: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DockerConfig({} registries, redacted)", self.auths.len())
    }
}

impl Entry {
    fn auth(&self) -> Option<Auth> {
        if !self.registry_token.is_empty() {
            return Some(Auth::RegistryToken(self.registry_token.as_str().into()));
        }
        if !self.identity_token.is_empty() {
            return Some(Auth::IdentityToken(self.identity_token.as_str().into()));
        }
        if !self.username.is_empty() {
            return Auth::basic(&self.username, &self.password).ok();
        }
        Auth::from_base64(&self.auth)
    }
}

impl DockerConfig {
    /// Parses. Errors: `InvalidArgument` saying where, without the text.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::invalid("Docker configuration", what);
        if bytes.len() > MAX_FILE {
            return Err(bad(format!("is longer than {MAX_FILE} bytes")));
        }
        // The parser's own words may quote a value, so only the place is told.
        serde_json::from_slice(bytes)
            .map_err(|e| bad(format!("is not of Docker's format: line {}, column {}", e.line(), e.column())))
    }

    /// Reads a file; `None` where there is none. Errors: as [`DockerConfig::parse`], and what the file system says.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.context(|| path.display())?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).context(|| path.display())?;
        Self::parse(&bytes).map(Some).context(|| path.display())
    }

    /// Writes the file anew, at once and readable by its owner alone.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| Error::internal(e.to_string()))?;
        text.push(b'\n');
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).context(|| directory.display())?;
        }
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let written =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()?;
                fs::rename(&new, path)
            });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.context(|| path.display())
    }

    /// The helper that keeps the credentials of a registry, if one does.
    pub fn helper(&self, host: &str) -> Option<&str> {
        let own = self.cred_helpers.iter().find(|(key, _)| host_and_path(key).0 == host).map(|(_, helper)| helper);
        own.or(self.creds_store.as_ref()).map(String::as_str).filter(|helper| !helper.is_empty())
    }

    /// The entries for an image (`host/path`), the longest key first.
    pub fn lookup(&self, image: &str) -> Vec<Auth> {
        let mut found: Vec<_> = self.auths.iter().filter(|(key, _)| matching::matches_image(key, image)).collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        found.into_iter().filter_map(|(_, entry)| entry.auth()).collect()
    }

    /// Whether there is an entry of exactly this registry.
    pub fn has(&self, host: &str) -> bool {
        self.auths.keys().any(|key| host_and_path(key) == (host.to_owned(), String::new()))
    }

    /// Sets the entry of a registry.
    pub fn set(&mut self, host: &str, username: &str, password: &Secret) {
        self.remove(host);
        let auth = STANDARD.encode(format!("{username}:{}", password.expose()));
        self.auths.insert(config_key(host), Entry { auth, ..Entry::default() });
    }

    /// Notes that a helper keeps the entry, as Docker does.
    pub fn set_helped(&mut self, host: &str) {
        self.remove(host);
        self.auths.insert(config_key(host), Entry::default());
    }

    /// Removes the entry of a registry. Returns whether there was one.
    pub fn remove(&mut self, host: &str) -> bool {
        let before = self.auths.len();
        self.auths.retain(|key, _| host_and_path(key) != (host.to_owned(), String::new()));
        self.auths.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = r#"{
      "auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnNlc2FtZQ==", "email": "x@y"},
        "r.example": {"username": "u", "password": "sesame"},
        "r.example/team": {"identitytoken": "sesame-id"},
        "helped.example": {}
      },
      "credHelpers": {"ecr.example": "ecr-login"},
      "HttpHeaders": {"User-Agent": "x"}
    }"#;

    #[test]
    fn entries_are_found_and_the_rest_is_kept() {
        let mut config = DockerConfig::parse(FILE.as_bytes()).unwrap();
        assert_eq!(config.lookup("docker.io/library/a"), [Auth::basic("hub", "sesame").unwrap()]);
        let both = [Auth::IdentityToken("sesame-id".into()), Auth::basic("u", "sesame").unwrap()];
        assert_eq!(config.lookup("r.example/team/app"), both);
        assert_eq!(config.lookup("r.example/other"), both[1..]);
        assert!(config.lookup("helped.example/a").is_empty());
        assert_eq!((config.helper("ecr.example"), config.helper("r.example")), (Some("ecr-login"), None));
        assert!(!format!("{config:?}").contains("sesame"));
        config.set("docker.io", "me", &"new".into());
        config.set("n.example:5000", "me", &"other".into());
        assert!(config.remove("r.example") && !config.remove("r.example"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/config.json");
        config.save(&path).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("HttpHeaders") && text.contains("credHelpers"), "{text}");
        let again = DockerConfig::load(&path).unwrap().unwrap();
        assert_eq!(again.lookup("docker.io/x"), [Auth::basic("me", "new").unwrap()]);
        assert_eq!(again.lookup("r.example/team/app"), both[..1]);
        assert!(again.has("n.example:5000") && !again.has("n.example"));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for text in [r#"{"auths": {"r": {"auth": 7, "password": "sesame"}}}"#, r#"{"auths": "sesame"}"#, "sesame"] {
            let e = DockerConfig::parse(text.as_bytes()).unwrap_err();
            assert!(e.message().contains("line 1") && !e.message().contains("sesame"), "{e}");
        }
        assert!(DockerConfig::parse(&vec![b' '; MAX_FILE + 1]).unwrap_err().message().contains("longer than"));
        assert!(DockerConfig::load(Path::new("/nonexistent/config.json")).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = DockerConfig::parse(&bytes);
        }
    }
}
