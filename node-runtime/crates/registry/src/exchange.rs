//! One attempt at one request: authentication, redirects, and what a status means.
//!
//! Owns: where a request goes and what it carries. Must not: repeat an attempt ([`crate::retry`] does), read bodies beyond a limit.
use crate::auth::Auth;
use crate::endpoint;
use crate::error::{Failure, denied, unavailable};
use crate::observe::{Observation, Outcome, Phase};
use crate::site::Site;
use crate::token::Cache;
use crate::transport::{Body, Transport};
use crate::wallet::Wallet;
use berth_model::{Error, ErrorKind, Reference, Result};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, LOCATION, RANGE, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Redirects followed at most.
const MAX_REDIRECTS: usize = 5;

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Below `/v2/<repository>/`, such as `manifests/latest`.
    Path(String),
    /// `/v2/` itself: who am I.
    Root,
    /// What a `Location` of this site named, such as an upload; credentials go along only to the site itself.
    Location(Uri),
}

/// What a request carries. It is made anew for each way that the request has to go.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a Bytes),
}

/// A request to a site.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub site: &'a Site,
    pub method: Method,
    pub repo: &'a Reference,
    /// Credentials of the request; anonymous are the node's own.
    pub auth: &'a Auth,
    pub target: Target,
    pub phase: Phase,
    pub accept: &'static str,
    /// Statuses that are an answer to the caller, not a failure.
    pub pass: &'static [u16],
    /// First byte wanted and the one behind the last, if not all.
    pub range: Option<(u64, Option<u64>)>,
    /// Wants a connection of its own.
    pub lanes: bool,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub payload: Payload<'a>,
    /// Time beyond that for headers, for a request that carries much.
    pub patience: Duration,
}

impl<'a> Ask<'a> {
    /// A request without a body for what lies below the repository.
    pub fn new(
        site: &'a Site,
        repo: &'a Reference,
        auth: &'a Auth,
        phase: Phase,
        method: Method,
        path: String,
    ) -> Self {
        Self {
            site,
            method,
            repo,
            auth,
            target: Target::Path(path),
            phase,
            accept: "*/*",
            pass: &[],
            range: None,
            lanes: false,
            headers: Vec::new(),
            payload: Payload::None,
            patience: Duration::ZERO,
        }
    }

    /// Whether it changes the registry: then tokens must allow it.
    pub fn writes(&self) -> bool {
        self.phase == Phase::Push
    }

    /// Whether the caller wants this status as it is. Of a server elsewhere only an upload's answers are.
    fn passes(&self, status: u16, at_home: bool) -> bool {
        (at_home || self.writes()) && self.pass.contains(&status)
    }

    fn uri(&self, scheme: &Scheme) -> Result<Uri> {
        let Site { authority, root, registry, .. } = self.site;
        let url = match &self.target {
            Target::Location(uri) => return Ok(uri.clone()),
            Target::Path(path) => format!("{scheme}://{authority}{root}/{}/{path}", self.repo.path()),
            Target::Root => format!("{scheme}://{authority}{root}/"),
        };
        // A pull-through cache for several registries learns so which one is meant, as from containerd.
        let url = match &self.site.mirror {
            Some(_) => format!("{url}?ns={registry}"),
            None => url,
        };
        url.parse()
            .map_err(|_| Error::invalid("image reference", format!("registry host {registry:?} makes no valid URL")))
    }

    fn request(
        &self,
        transport: &Transport,
        uri: &Uri,
        proof: Option<&HeaderValue>,
        home: bool,
    ) -> Result<Request<Body>> {
        let mut builder = Request::builder()
            .method(self.method.clone())
            .uri(uri)
            .header(USER_AGENT, &transport.config.user_agent)
            .header(ACCEPT, self.accept);
        match self.range {
            Some((from, Some(end))) => {
                builder = builder.header(RANGE, format!("bytes={from}-{}", end.saturating_sub(1)))
            }
            Some((from, None)) => builder = builder.header(RANGE, format!("bytes={from}-")),
            None => {}
        }
        // The settings' headers are for the site, like its credentials.
        let own = self.site.headers.iter().filter(|_| home);
        for (name, value) in self.headers.iter().chain(own) {
            builder = builder.header(name, value);
        }
        if let Some(proof) = proof {
            builder = builder.header(AUTHORIZATION, proof);
        }
        let body = match self.payload {
            Payload::None => empty(),
            Payload::Bytes(bytes) => full(bytes.clone()),
        };
        builder.body(body).map_err(|e| Error::internal(format!("registry request: {e}")))
    }
}

/// No body.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// A body in memory.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What an attempt needs of the client.
#[derive(Clone, Copy)]
pub(crate) struct Exchange<'a> {
    pub transport: &'a Transport,
    pub cache: &'a Cache,
}

impl Exchange<'_> {
    /// Sends, answers a challenge, follows redirects. The answer has a status of success, or one that the caller lets pass.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Failure> {
        let begun = Instant::now();
        let result = self.walk(ask).await;
        let outcome = match &result {
            Ok(response) if response.status().as_u16() == 404 => Outcome::NotFound,
            Ok(_) => Outcome::Ok,
            Err(failure) => failure.outcome(),
        };
        let place = ask.site.place();
        self.transport.tell(&Observation::Request { place, phase: ask.phase, outcome, elapsed: begun.elapsed() });
        result
    }

    async fn walk(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Failure> {
        let name = ask.site.name();
        let scheme = self.transport.scheme(ask.site).await?;
        let mut uri = ask.uri(&scheme)?;
        let home = format!("{scheme}://{}", ask.site.authority).parse().ok().and_then(|u| endpoint::origin(&u));
        let mut wallet = Wallet::new(*self, ask, &scheme);
        let mut at_home = endpoint::origin(&uri) == home;
        let mut proof = wallet.known().filter(|_| at_home);
        let mut hops = 0;
        loop {
            let request = ask.request(self.transport, &uri, proof.as_ref(), at_home)?;
            let response = self.transport.send(ask.site, request, ask.lanes, ask.patience).await?;
            let status = response.status().as_u16();
            if ask.passes(status, at_home) {
                return Ok(response);
            }
            if at_home
                && wallet.may_help(status)
                && let Some(next) = wallet.next(response.headers()).await?
            {
                proof = Some(next);
            } else if let Some(location) = redirect(ask, &response) {
                hops += 1;
                if hops > MAX_REDIRECTS {
                    return Err(unavailable(name, format!("redirects more than {MAX_REDIRECTS} times")).into());
                }
                let next = endpoint::resolve_location(&uri, location)
                    .filter(|next| endpoint::may_redirect(&uri, next))
                    .ok_or_else(|| unavailable(name, "redirects to where a pull must not follow"))?;
                // Once away, the credential stays behind, even if the way leads back.
                if endpoint::origin(&next) != endpoint::origin(&uri) {
                    at_home = false;
                    proof = None;
                }
                uri = next;
            } else {
                if at_home && matches!(status, 401 | 403) {
                    wallet.forget();
                }
                return judge(ask, response, at_home, &uri, wallet.has_shown());
            }
        }
    }
}

/// Where the answer leads. What carries a body is sent again only where the answer says so (307, 308).
fn redirect<'r>(ask: &Ask<'_>, response: &'r Response<Incoming>) -> Option<&'r str> {
    let reads = matches!(ask.method, Method::GET | Method::HEAD);
    let follow = match response.status().as_u16() {
        307 | 308 => true,
        301..=303 => reads,
        _ => false,
    };
    response.headers().get(LOCATION).filter(|_| follow)?.to_str().ok()
}

/// Success, or the failure that the status stands for.
fn judge(
    ask: &Ask<'_>,
    response: Response<Incoming>,
    at_home: bool,
    uri: &Uri,
    shown: bool,
) -> Result<Response<Incoming>, Failure> {
    let (name, repo) = (ask.site.name(), ask.repo);
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    Err(match status.as_u16() {
        401 | 403 if !at_home => {
            let there = uri.host().unwrap_or_default();
            denied(ask.site, repo, format!("it redirects to {there}, which does not give the content out")).into()
        }
        401 | 403 if !shown => {
            let remedy =
                "it does not exist or needs credentials (imagePullSecrets, a credential provider, or `berth login`)";
            denied(ask.site, repo, remedy).into()
        }
        401 | 403 => denied(ask.site, repo, "the credentials do not allow it").into(),
        404 => not_found(ask).into(),
        429 => Failure::Limited(unavailable(name, "limits the rate of pulls (429)"), retry_after(response.headers())),
        408 | 425 | 500..=599 => {
            Failure::Again(unavailable(name, format!("answers {}", status.as_u16())), retry_after(response.headers()))
        }
        code => unavailable(name, format!("answers {code}")).into(),
    })
}

fn not_found(ask: &Ask<'_>) -> Error {
    let path = match &ask.target {
        Target::Path(path) => path.as_str(),
        Target::Root => "distribution API",
        Target::Location(_) => "upload",
    };
    let (kind, what) = path.split_once("s/").unwrap_or(("object", path));
    let text =
        format!("registry {} has no {kind} {what} in repository {}", ask.site.name(), ask.site.repository(ask.repo));
    Error::new(ErrorKind::NotFound, text)
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
    name: &str,
    response: Response<Incoming>,
    limit: usize,
    stall: Duration,
) -> Result<Bytes, Failure> {
    let too_large = || {
        let text = format!("registry {name}: the answer is larger than the {limit} bytes allowed here");
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
                return Err(Failure::Again(unavailable(name, format!("broke off its answer: {e}")), None));
            }
            Err(_) => return Err(Failure::Again(unavailable(name, "stalled in the middle of an answer"), None)),
        }
    }
}

/// The next piece of a body, within `limit`.
pub(crate) async fn next_data(name: &str, body: &mut Incoming, limit: Duration) -> Result<Option<Bytes>, Failure> {
    loop {
        match timeout(limit, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(_))) => {
                return Err(Failure::Again(unavailable(name, "broke off in the middle of a blob"), None));
            }
            Err(_) => {
                let text = format!("stalled in the middle of a blob: nothing came for {} ms", limit.as_millis());
                return Err(Failure::Again(unavailable(name, text), None));
            }
        }
    }
}
