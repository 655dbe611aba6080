//! What one request may show of itself: proofs of before, then each credential that is for this site, in order.
//!
//! Owns: which credential goes where, and when the next one is tried. Must not: read credentials from anywhere (the keychain does).
use crate::auth::{Auth, secret};
use crate::challenge::{Challenge, parse_challenges};
use crate::config::MirrorCredentials;
use crate::endpoint;
use crate::error::{Failure, denied};
use crate::exchange::{Ask, Exchange};
use crate::token::{Key, Wanted};
use berth_model::ErrorKind;
use http::header::WWW_AUTHENTICATE;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a proof is kept that has no expiry of its own.
const BASIC_LIFE: Duration = Duration::from_secs(300);

pub(crate) struct Wallet<'a> {
    exchange: Exchange<'a>,
    ask: &'a Ask<'a>,
    scheme: Scheme,
    /// Those of the request, for this site.
    own: Auth,
    key: Key,
    /// What was not tried yet; `None` before the first challenge.
    left: Option<VecDeque<Auth>>,
    challenges: Vec<Challenge>,
    shown: bool,
}

impl<'a> Wallet<'a> {
    pub fn new(exchange: Exchange<'a>, ask: &'a Ask<'a>, scheme: &Scheme) -> Self {
        let own = match (&ask.site.mirror, ask.site.credentials) {
            (None, _) | (Some(_), MirrorCredentials::Registry) => ask.auth.at(None),
            (Some(_), MirrorCredentials::Own) => ask.auth.at(Some(&ask.site.authority)),
            (Some(_), MirrorCredentials::None) => Auth::Anonymous,
        };
        let edition = if own == Auth::Anonymous { exchange.transport.config.keychain.edition() } else { 0 };
        let key = Key::new(ask, &own, edition);
        Self { exchange, ask, scheme: scheme.clone(), own, key, left: None, challenges: Vec::new(), shown: false }
    }

    /// What can be shown before a challenge: a token of before, or the registry token itself.
    pub fn known(&mut self) -> Option<HeaderValue> {
        let proof = match &self.own {
            Auth::RegistryToken(token) if self.sendable() => secret(&format!("Bearer {}", token.expose())),
            _ => self.exchange.cache.get(&self.key),
        };
        self.shown = proof.is_some() && self.own != Auth::Anonymous;
        proof
    }

    /// Whether the site was shown a credential, or what came of one.
    pub fn has_shown(&self) -> bool {
        self.shown
    }

    /// What was shown is refused: the next request proves itself anew, with what there is by then (a login, another pod's secret).
    pub fn forget(&self) {
        self.exchange.cache.forget(&self.key);
    }

    /// Whether another credential may change this answer.
    pub fn may_help(&self, status: u16) -> bool {
        match &self.left {
            None => status == 401,
            Some(left) => matches!(status, 401 | 403) && !left.is_empty(),
        }
    }

    /// The proof to try after an answer that refuses. Errors: why the last credential came to nothing; `None`: the answer stands.
    pub async fn next(&mut self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Failure> {
        self.forget();
        if self.left.is_none() {
            let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
            self.challenges = values.flat_map(parse_challenges).collect();
            self.left = Some(self.candidates().await);
        }
        let mut refused = None;
        while let Some(auth) = self.left.as_mut().and_then(VecDeque::pop_front) {
            match self.prove(&auth).await {
                Ok((value, life)) => {
                    self.shown |= auth != Auth::Anonymous;
                    self.exchange.cache.put(self.key.clone(), value.clone(), life);
                    return Ok(Some(value));
                }
                // A token server that refuses one credential may take the next.
                Err(Failure::Final(e)) if e.kind() == ErrorKind::PermissionDenied => {
                    refused.get_or_insert(e);
                }
                Err(other) => return Err(other),
            }
        }
        refused.map_or(Ok(None), |e| Err(e.into()))
    }

    async fn candidates(&self) -> VecDeque<Auth> {
        if self.own != Auth::Anonymous {
            return [self.own.clone()].into();
        }
        let site = self.ask.site;
        let ours = site.mirror.is_none() || site.credentials != MirrorCredentials::None;
        let mut found: VecDeque<Auth> = match ours {
            true => {
                let image = site.credential_image(self.ask.repo);
                self.exchange.transport.config.keychain.lookup(&image, self.exchange.transport).await.into()
            }
            false => VecDeque::new(),
        };
        // A login that has run out must not stand in the way of what is open to all.
        if found.is_empty() || self.bearer().is_some() {
            found.push_back(Auth::Anonymous);
        }
        found
    }

    fn bearer(&self) -> Option<(&str, &str, &str)> {
        self.challenges.iter().find_map(|c| match c {
            Challenge::Bearer { realm, service, scope } => Some((realm.as_str(), service.as_str(), scope.as_str())),
            Challenge::Basic => None,
        })
    }

    /// What a credential becomes in the eyes of this site: a header's value, and how long it is good.
    async fn prove(&self, auth: &Auth) -> Result<(HeaderValue, Duration), Failure> {
        let (site, repo) = (self.ask.site, self.ask.repo);
        let refuse = |why: &str| Failure::Final(denied(site, repo, why));
        if *auth != Auth::Anonymous && !self.sendable() {
            return Err(refuse("credentials are not sent over plain HTTP; serve it over HTTPS"));
        }
        if let Auth::RegistryToken(token) = auth {
            // The request's own was shown at once; one of the node's is tried now.
            let fresh = secret(&format!("Bearer {}", token.expose())).filter(|_| *auth != self.own);
            return fresh.map(|v| (v, BASIC_LIFE)).ok_or_else(|| refuse("it did not accept the registry token"));
        }
        if let Some((realm, service, scope)) = self.bearer() {
            let actions = if self.ask.writes() { "pull,push" } else { "pull" };
            let scope = match scope {
                "" => format!("repository:{}:{actions}", site.repository(repo)),
                given => given.to_owned(),
            };
            return Wanted { site, repo, auth, realm, service, scope: &scope }.fetch(self.exchange.transport).await;
        }
        if !self.challenges.contains(&Challenge::Basic) {
            return Err(refuse("it asks for a kind of authentication that is not supported"));
        }
        auth.basic_header().map(|v| (v, BASIC_LIFE)).ok_or_else(|| {
            refuse("it wants a user name and a password (imagePullSecrets, a credential provider, or `berth login`)")
        })
    }

    /// Credentials travel over TLS, or stay on this machine.
    fn sendable(&self) -> bool {
        self.scheme == Scheme::HTTPS || endpoint::is_loopback(&self.ask.site.authority)
    }
}
