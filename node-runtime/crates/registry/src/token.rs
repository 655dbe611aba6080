//! Tokens: fetched from the server that a challenge names, kept until they expire.
//!
//! Owns: which credential may go to which token server, and the cache. Must not: talk to the registry itself.
//! Source: distribution's "Token Authentication Specification" and "OAuth2 token authentication".
use crate::auth::{Auth, secret};
use crate::endpoint;
use crate::error::{Failure, denied, unavailable};
use crate::exchange::{Ask, empty, full, read_limited, retry_after};
use crate::observe::{Observation, Outcome, Phase};
use crate::site::Site;
use crate::transport::{Body, Transport};
use aws_lc_rs::digest;
use berth_model::{Reference, Result};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Largest answer of a token server. Tokens with many claims reach some KiB.
const MAX_ANSWER: usize = 256 << 10;
/// Tokens kept at most; a node pulls from few repositories at a time.
const MAX_KEPT: usize = 1024;
/// What the specification assumes where a server says nothing.
const DEFAULT_LIFE: u64 = 60;
/// Longest life believed.
const MAX_LIFE: u64 = 3600;

/// A proof for one repository, in one name: what is good for one pod's credentials serves no other's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    site: String,
    path: String,
    who: [u8; 32],
    writes: bool,
    /// Of the node's own credentials, where those count ([`crate::credentials::Keychain::edition`]).
    edition: u64,
}

impl Key {
    pub fn new(ask: &Ask<'_>, auth: &Auth, edition: u64) -> Self {
        // One URL may be a mirror of two registries, with other credentials for each.
        let site = format!("{} {}", ask.site.registry, ask.site.name());
        Self { site, path: ask.repo.path().to_owned(), who: fingerprint(auth), writes: ask.writes(), edition }
    }
}

/// A value that differs wherever the credentials differ and tells nothing about them.
fn fingerprint(auth: &Auth) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    if let Auth::Elsewhere { host, auth } = auth {
        hash.update(host.as_bytes());
        hash.update(&fingerprint(auth));
    }
    let parts: [&str; 3] = match auth {
        Auth::Anonymous => ["anonymous", "", ""],
        Auth::Basic { username, password } => ["basic", username, password.expose()],
        Auth::IdentityToken(token) => ["identity", token.expose(), ""],
        Auth::RegistryToken(token) => ["registry", token.expose(), ""],
        Auth::Elsewhere { .. } => ["elsewhere", "", ""],
    };
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// `Authorization` values that worked, or are about to be tried.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<Key, (HeaderValue, Instant)>>);

impl Cache {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (HeaderValue, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &Key) -> Option<HeaderValue> {
        self.lock().get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    pub fn put(&self, key: Key, value: HeaderValue, life: Duration) {
        let mut kept = self.lock();
        let now = Instant::now();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (_, until)| *until > now);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, (value, now + life));
    }

    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }
}

/// A bearer challenge to be answered.
pub(crate) struct Wanted<'a> {
    pub site: &'a Site,
    pub repo: &'a Reference,
    pub auth: &'a Auth,
    pub realm: &'a str,
    pub service: &'a str,
    pub scope: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Wanted<'_> {
    /// Gets a token; returns the header value and how long to keep it.
    pub async fn fetch(&self, transport: &Transport) -> Result<(HeaderValue, Duration), Failure> {
        let begun = Instant::now();
        let result = self.exchange(transport).await;
        let outcome = result.as_ref().map_or_else(Failure::outcome, |_| Outcome::Ok);
        let place = self.site.place();
        transport.tell(&Observation::Request { place, phase: Phase::Token, outcome, elapsed: begun.elapsed() });
        result
    }

    async fn exchange(&self, transport: &Transport) -> Result<(HeaderValue, Duration), Failure> {
        let host = self.site.name();
        let realm = self.realm(transport)?;
        let request = self.request(&realm, &transport.config.user_agent)?;
        let response = transport.send(self.site, request, false, Duration::ZERO).await?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(denied(self.site, self.repo, "its token server did not accept the credentials").into());
            }
            _ => {
                let e = unavailable(host, format!("cannot be used: its token server answers {}", status.as_u16()));
                return Err(match status {
                    StatusCode::TOO_MANY_REQUESTS => Failure::Limited(e, retry_after(response.headers())),
                    _ if status.is_server_error() => Failure::Again(e, retry_after(response.headers())),
                    _ => Failure::Final(e),
                });
            }
        }
        let body = read_limited(host, response, MAX_ANSWER, transport.config.timeouts.stall).await?;
        let unusable = || unavailable(host, "cannot be used: its token server's answer has no usable token");
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| unusable())?;
        let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).ok_or_else(unusable)?;
        let value = secret(&format!("Bearer {token}")).ok_or_else(unusable)?;
        // A little less than promised, so that a token does not expire on its way.
        let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).min(MAX_LIFE);
        Ok((value, Duration::from_secs(life.saturating_sub(life.div_ceil(10).min(10)))))
    }

    /// The realm as a URL that may be shown the credential: HTTPS, or loopback for a registry on loopback.
    fn realm(&self, transport: &Transport) -> Result<Uri, Failure> {
        let host = &self.site.authority;
        let refuse = |why: &str| Failure::Final(denied(self.site, self.repo, format!("its token server {why}")));
        let uri: Uri = self.realm.parse().map_err(|_| refuse("has no valid URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(refuse("has no valid URL"));
        };
        if authority.as_str().contains('@') {
            return Err(refuse("has a user name in its URL"));
        }
        if *scheme == Scheme::HTTPS {
            return Ok(uri);
        }
        let near = endpoint::is_loopback(authority.host()) && endpoint::is_loopback(host);
        let allowed = transport.config.host(authority.as_str()).is_some_and(|s| s.plain_http);
        if *scheme == Scheme::HTTP && (near || (allowed && *self.auth == Auth::Anonymous)) {
            return Ok(uri);
        }
        Err(refuse("does not speak HTTPS, so it is not asked"))
    }

    fn request(&self, realm: &Uri, user_agent: &str) -> Result<Request<Body>, Failure> {
        let mut form = vec![("service", self.service), ("scope", self.scope)];
        form.retain(|(_, value)| !value.is_empty());
        let broken = |_| Failure::Final(denied(self.site, self.repo, "its token server has no valid URL"));
        let builder = Request::builder().header(USER_AGENT, user_agent).header(ACCEPT, "application/json");
        if let Auth::IdentityToken(token) = self.auth {
            form.extend([("grant_type", "refresh_token"), ("client_id", "berth"), ("refresh_token", token.expose())]);
            return builder
                .method(Method::POST)
                .uri(realm)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(full(encode(&form).into()))
                .map_err(broken);
        }
        let query = match realm.query() {
            Some(own) => format!("{own}&{}", encode(&form)),
            None => encode(&form),
        };
        let authority = realm.authority().map_or("", |a| a.as_str());
        let url = format!("{}://{authority}{}?{query}", realm.scheme_str().unwrap_or("https"), realm.path());
        let builder = builder.uri(url);
        match self.auth.basic_header() {
            Some(value) => builder.header(AUTHORIZATION, value),
            None => builder,
        }
        .body(empty())
        .map_err(broken)
    }
}

/// `application/x-www-form-urlencoded`.
fn encode(form: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in form {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}
