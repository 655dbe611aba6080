//! What helpers and providers answer.
//!
//! Owns: parsing. Must not: run them. Both are documents of others: no error shows their text. Fuzz target: `registry_words`.
//! Source: docker/docker-credential-helpers; `credentialprovider.kubelet.k8s.io/v1` (KEP-2133).
use super::matching::matches_image;
use crate::auth::Auth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";
/// The one version of the protocol that is spoken.
pub const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// A helper's answer to `get`: `Some(None)` is nothing.
pub fn parse_helper(bytes: &[u8]) -> Option<Option<Auth>> {
    let answer: Helped = serde_json::from_slice(bytes).ok()?;
    Some(match (answer.username.as_str(), answer.secret.as_str()) {
        (_, "") => None,
        (TOKEN_USER, token) => Some(Auth::IdentityToken(token.into())),
        ("", _) => None,
        (username, secret) => Some(Auth::basic(username, secret).ok()?),
    })
}

/// How far an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum CacheKeyType {
    /// For this image.
    Image,
    /// For this registry.
    Registry,
    /// For all images that the provider is asked for.
    Global,
}

/// The document that a provider writes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    kind: String,
    api_version: String,
    /// How far it holds.
    pub cache_key_type: CacheKeyType,
    /// How long, as Go writes durations.
    #[serde(default)]
    pub cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Response {
    /// Parses. Errors: what is wrong, without the text.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let response: Self = serde_json::from_slice(bytes)
            .map_err(|e| format!("gave no CredentialProviderResponse (line {}, column {})", e.line(), e.column()))?;
        if response.kind != "CredentialProviderResponse" || response.api_version != API_VERSION {
            return Err(format!("gave an answer that is not a CredentialProviderResponse of {API_VERSION}"));
        }
        if response.cache_duration.as_deref().is_some_and(|d| go_duration(d).is_none()) {
            return Err("gave a cacheDuration that is no duration such as 5m0s".into());
        }
        Ok(response)
    }

    /// The credentials for an image, the longest key first.
    pub fn lookup(&self, image: &str) -> Vec<Auth> {
        let mut found: Vec<_> = self.auth.iter().flatten().filter(|(key, _)| matches_image(key, image)).collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        let login = |(_, login): (_, &Login)| Auth::basic(&login.username, &login.password).ok();
        found.into_iter().filter(|(_, l)| !l.username.is_empty() || !l.password.is_empty()).filter_map(login).collect()
    }
}

/// A duration as Go writes it (`1h30m`, `1.5s`, `0`); negative ones are zero. `None` for anything else.
pub fn go_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_read_and_matched() {
        let text = format!(
            r#"{{"kind":"CredentialProviderResponse","apiVersion":"{API_VERSION}","cacheKeyType":"Registry","cacheDuration":"5m0s",
               "auth":{{"*.example":{{"username":"a","password":"b"}},"r.example/team":{{"username":"c","password":"d"}}}}}}"#
        );
        let response = Response::parse(text.as_bytes()).unwrap();
        assert_eq!(
            response.lookup("r.example/team/x"),
            [Auth::basic("c", "d").unwrap(), Auth::basic("a", "b").unwrap()]
        );
        assert!(response.lookup("other.io/x").is_empty());
        let none = text.replace(r#""auth":{"#, r#""other":{"#);
        assert!(Response::parse(none.as_bytes()).unwrap().lookup("r.example/x").is_empty());
        for (from, to) in
            [("Response\"", "Request\""), ("k8s.io/v1", "k8s.io/v1beta1"), ("5m0s", "soon"), ("Registry", "Host")]
        {
            assert!(Response::parse(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
        let e = Response::parse(br#"{"kind": "sesame"}"#).err().unwrap();
        assert!(!e.contains("sesame"), "{e}");
    }

    #[test]
    fn durations_as_go_writes_them() {
        let seconds = |text: &str| go_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("1.5s"), Some(1.5));
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("-5s"), Some(0.0));
        for bad in ["", "5", "s", "5x", "1h m", "..s", "9999999999999999999999h"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn helpers_answers() {
        let parse = |text: &str| parse_helper(text.as_bytes());
        assert_eq!(
            parse(r#"{"ServerURL":"x","Username":"u","Secret":"s"}"#),
            Some(Some(Auth::basic("u", "s").unwrap()))
        );
        assert_eq!(parse(r#"{"Username":"<token>","Secret":"t"}"#), Some(Some(Auth::IdentityToken("t".into()))));
        assert_eq!(parse(r#"{"Username":"","Secret":""}"#), Some(None));
        for bad in ["", "null", "credentials", r#"{"Username":1}"#] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,60}") {
            go_duration(&text);
            let _ = Response::parse(text.as_bytes());
        }
    }
}
