//! One attempt at one request: authentication, redirects, and what a status means.
//!
//! Owns: where the credential goes. Must not: repeat an attempt ([`crate::retry`] does), read bodies beyond a limit.
use crate::auth::{Auth, secret};
use crate::challenge::{Challenge, parse_challenges};
use crate::endpoint;
use crate::error::{Failure, denied, unavailable};
use crate::token::{Cache, Key, Wanted};
use crate::transport::Transport;
use berth_model::{Error, ErrorKind, Reference, Result};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::timeout;

/// Redirects followed at most.
const MAX_REDIRECTS: usize = 5;
/// How long a proof is kept that has no expiry of its own.
const BASIC_LIFE: Duration = Duration::from_secs(300);

/// A request to a registry.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub method: Method,
    pub repo: &'a Reference,
    pub auth: &'a Auth,
    /// Below `/v2/<repository>/`, such as `manifests/latest`.
    pub path: String,
    pub accept: &'static str,
    /// Statuses that are an answer to the caller, not a failure.
    pub pass: &'static [u16],
    /// First byte wanted, if not the first of all.
    pub from: Option<u64>,
}

/// What an attempt needs of the client.
pub(crate) struct Exchange<'a> {
    pub transport: &'a Transport,
    pub cache: &'a Cache,
}

impl Exchange<'_> {
    /// Sends, answers a challenge, follows redirects. The answer has a status of success; others are failures.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Failure> {
        let host = ask.repo.host();
        let scheme = self.transport.scheme(host).await?;
        let url = format!("{scheme}://{}/v2/{}/{}", endpoint::authority(host), ask.repo.path(), ask.path);
        let bad_url = |_| Error::invalid("image reference", format!("registry host {host:?} makes no valid URL"));
        let mut uri: Uri = url.parse().map_err(bad_url)?;
        let key = Key::new(ask.repo, ask.auth);
        let mut proof = self.known_proof(&key, ask, &scheme);
        let (mut at_home, mut challenged, mut hops) = (true, false, 0);
        loop {
            let response = self.transport.send(host, request(self.transport, ask, &uri, proof.as_ref())?).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && at_home && !challenged {
                challenged = true;
                self.cache.forget(&key);
                proof = Some(self.prove(&key, ask, &scheme, response.headers()).await?);
            } else if let Some(location) = redirect(&response) {
                hops += 1;
                if hops > MAX_REDIRECTS {
                    return Err(unavailable(host, format!("redirects more than {MAX_REDIRECTS} times")).into());
                }
                let next = endpoint::resolve_location(&uri, location)
                    .filter(|next| endpoint::may_redirect(&uri, next))
                    .ok_or_else(|| unavailable(host, "redirects to where a pull must not follow"))?;
                // Once away, the credential stays behind, even if the way leads back.
                if endpoint::origin(&next) != endpoint::origin(&uri) {
                    at_home = false;
                    proof = None;
                }
                uri = next;
            } else {
                return judge(ask, response, at_home, &uri);
            }
        }
    }

    /// What can be shown before a challenge: a token of before, or the registry token itself.
    fn known_proof(&self, key: &Key, ask: &Ask<'_>, scheme: &Scheme) -> Option<HeaderValue> {
        match ask.auth {
            Auth::RegistryToken(token) if sendable(ask, scheme) => secret(&format!("Bearer {token}")),
            _ => self.cache.get(key),
        }
    }

    /// Answers the challenges of a 401.
    async fn prove(
        &self,
        key: &Key,
        ask: &Ask<'_>,
        scheme: &Scheme,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, Failure> {
        if *ask.auth != Auth::Anonymous && !sendable(ask, scheme) {
            return Err(denied(ask.repo, "credentials are not sent over plain HTTP; serve it over HTTPS").into());
        }
        if matches!(ask.auth, Auth::RegistryToken(_)) {
            return Err(denied(ask.repo, "it did not accept the registry token").into());
        }
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let bearer = challenges.iter().find_map(|c| match c {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let (value, life) = match bearer {
            Some((realm, service, scope)) => {
                let scope = match scope.as_str() {
                    "" => format!("repository:{}:pull", ask.repo.path()),
                    given => given.to_owned(),
                };
                let wanted = Wanted { repo: ask.repo, auth: ask.auth, realm, service, scope: &scope };
                wanted.fetch(self.transport).await?
            }
            None if challenges.contains(&Challenge::Basic) => match ask.auth.basic_header() {
                Some(value) => (value, BASIC_LIFE),
                None => return Err(denied(ask.repo, "it wants a user name and a password").into()),
            },
            None => return Err(denied(ask.repo, "it asks for a kind of authentication that is not supported").into()),
        };
        self.cache.put(key.clone(), value.clone(), life);
        Ok(value)
    }
}

/// Credentials travel over TLS, or stay on this machine.
fn sendable(ask: &Ask<'_>, scheme: &Scheme) -> bool {
    *scheme == Scheme::HTTPS || endpoint::is_loopback(ask.repo.host())
}

fn request(
    transport: &Transport,
    ask: &Ask<'_>,
    uri: &Uri,
    proof: Option<&HeaderValue>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut builder = Request::builder()
        .method(ask.method.clone())
        .uri(uri)
        .header(USER_AGENT, &transport.config.user_agent)
        .header(ACCEPT, ask.accept);
    if let Some(from) = ask.from {
        builder = builder.header(RANGE, format!("bytes={from}-"));
    }
    if let Some(proof) = proof {
        builder = builder.header(AUTHORIZATION, proof);
    }
    builder.body(Full::default()).map_err(|e| Error::internal(format!("registry request: {e}")).into())
}

fn redirect(response: &Response<Incoming>) -> Option<&str> {
    let follow = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(LOCATION).filter(|_| follow)?.to_str().ok()
}

/// Success, or the failure that the status stands for.
fn judge(ask: &Ask<'_>, response: Response<Incoming>, at_home: bool, uri: &Uri) -> Result<Response<Incoming>, Failure> {
    let (host, repo) = (ask.repo.host(), ask.repo);
    let status = response.status();
    if status.is_success() || (at_home && ask.pass.contains(&status.as_u16())) {
        return Ok(response);
    }
    Err(match status.as_u16() {
        401 | 403 if !at_home => {
            let there = uri.host().unwrap_or_default();
            denied(repo, format!("it redirects to {there}, which does not give the content out")).into()
        }
        401 | 403 if *ask.auth == Auth::Anonymous => {
            denied(repo, "it does not exist or needs credentials (imagePullSecrets)").into()
        }
        401 | 403 => denied(repo, "the credentials do not allow it").into(),
        404 => {
            let (kind, name) = ask.path.split_once("s/").unwrap_or(("object", &ask.path));
            let text = format!("registry {host} has no {kind} {name} in repository {}", repo.path());
            Error::new(ErrorKind::NotFound, text).into()
        }
        429 => Failure::Again(unavailable(host, "limits the rate of pulls (429)"), retry_after(response.headers())),
        408 | 425 | 500..=599 => {
            Failure::Again(unavailable(host, format!("answers {}", status.as_u16())), retry_after(response.headers()))
        }
        code => unavailable(host, format!("answers {code}")).into(),
    })
}

/// `Retry-After` in seconds. A date is rare with registries and left to our own backoff.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The announced length of a body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_limited(
    host: &str,
    response: Response<Incoming>,
    limit: usize,
    stall: Duration,
) -> Result<Bytes, Failure> {
    let too_large = || {
        let text = format!("registry {host}: the answer is larger than the {limit} bytes allowed here");
        Failure::Final(Error::new(ErrorKind::ResourceExhausted, text))
    };
    if content_length(response.headers()).is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    // The time is for the whole: these bodies are small, and a slow drip must not hold a pull.
    let deadline = tokio::time::Instant::now() + stall;
    loop {
        match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > limit {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Some(Err(e))) => {
                return Err(Failure::Again(unavailable(host, format!("broke off its answer: {e}")), None));
            }
            Err(_) => return Err(Failure::Again(unavailable(host, "stalled in the middle of an answer"), None)),
        }
    }
}

/// The next piece of a body, within `limit`.
pub(crate) async fn next_data(host: &str, body: &mut Incoming, limit: Duration) -> Result<Option<Bytes>, Failure> {
    loop {
        match timeout(limit, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(_))) => {
                return Err(Failure::Again(unavailable(host, "broke off in the middle of a blob"), None));
            }
            Err(_) => return Err(Failure::Again(unavailable(host, "stalled in the middle of a blob"), None)),
        }
    }
}
