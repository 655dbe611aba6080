//! Who may do what: Basic, and bearer tokens with a token server on the same port.
//!
//! Owns: challenges, grants. Must not: be clever; tokens are serial numbers.
//! Source: distribution's "Token Authentication Specification" and "OAuth2 token authentication".
use crate::registry::{AuthMode, TokenAuth};
use crate::routes::Answer;
use crate::state::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::json;
use std::time::Instant;

const SERVICE: &str = "berth-test-registry";

/// Lets the request pass, or gives the answer that refuses it.
pub(crate) fn check(state: &State, parts: &Parts, repo: Option<&str>) -> Result<(), Box<Answer>> {
    let header = parts.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    match &state.auth {
        AuthMode::Open => Ok(()),
        AuthMode::Basic { username, password } => {
            if header.and_then(basic) == Some((username.clone(), password.clone())) {
                Ok(())
            } else {
                Err(Box::new(refuse(&format!("Basic realm=\"{SERVICE}\""))))
            }
        }
        AuthMode::Token(settings) => {
            let pull = matches!(parts.method, Method::GET | Method::HEAD);
            let action = if pull { "pull" } else { "push" };
            let token = header.and_then(|h| h.strip_prefix("Bearer ")).and_then(|t| state.tokens.get(t));
            let allowed = token.is_some_and(|token| {
                let granted = |repo: &str| token.grants.contains(&format!("repository:{repo}:{action}"));
                token.expires > Instant::now() && repo.is_none_or(granted)
            });
            if allowed { Ok(()) } else { Err(Box::new(refuse(&bearer_challenge(state, settings, repo, pull)))) }
        }
    }
}

fn bearer_challenge(state: &State, settings: &TokenAuth, repo: Option<&str>, pull: bool) -> String {
    let realm = settings.realm.clone().unwrap_or_else(|| format!("{}/token", state.base_url));
    let scope = match repo {
        Some(repo) => format!(",scope=\"repository:{repo}:{}\"", if pull { "pull" } else { "pull,push" }),
        None => String::new(),
    };
    format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}")
}

fn refuse(challenge: &str) -> Answer {
    let mut answer = Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    answer.header(WWW_AUTHENTICATE, challenge);
    answer
}

fn basic(header: &str) -> Option<(String, String)> {
    let raw = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let (user, password) = std::str::from_utf8(&raw).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The token server: GET with Basic or nothing, POST with an identity token or a password.
pub(crate) fn token(state: &mut State, parts: &Parts, body: &[u8]) -> Answer {
    let AuthMode::Token(settings) = state.auth.clone() else {
        return Answer::error(StatusCode::NOT_FOUND, "NOT_FOUND", "no token server");
    };
    let post = parts.method == Method::POST;
    let query = if post { String::from_utf8_lossy(body) } else { parts.uri.query().unwrap_or_default().into() };
    let form = query_pairs(&query);
    let get = |key: &str| form.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let header = parts.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let known = match (post, header) {
        (true, _) if get("grant_type") == Some("refresh_token") => {
            settings.identity_token.is_some() && get("refresh_token") == settings.identity_token.as_deref()
        }
        (true, _) => get("username") == Some(&settings.username) && get("password") == Some(&settings.password),
        (false, Some(h)) => basic(h) == Some((settings.username.clone(), settings.password.clone())),
        (false, None) => false,
    };
    if !known && (post || header.is_some()) {
        return Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect username or password");
    }
    let scopes = form.iter().filter(|(k, _)| k == "scope").flat_map(|(_, v)| v.split(' '));
    let mut grants = Vec::new();
    for (name, action) in scopes.filter_map(|s| s.rsplit_once(':')).flat_map(|(n, a)| a.split(',').map(move |a| (n, a)))
    {
        if known || (settings.anonymous_pull && action == "pull") {
            grants.push(format!("{name}:{action}"));
        }
    }
    let value = state.issue(grants, settings.expires_in);
    let name = if post { "access_token" } else { "token" };
    Answer::json(StatusCode::OK, &json!({name: value, "expires_in": settings.expires_in}))
}

/// `a=b&c=d`, percent-decoded.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |p: &str| p.split_once('=').map(|(k, v)| (decode(k), decode(v)));
    query.split('&').filter_map(pair).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
