//! Pushing: blobs that a registry does not have yet, then the manifests that name them.
//!
//! Owns: upload sessions, mounts from another repository, resumption. Must not: go to mirrors; what is pushed goes to the registry that the
//! reference names.
//! Source: OCI distribution spec 1.1, "Pushing blobs", "Mounting a blob from another repository", "Pushing manifests".
use crate::auth::Auth;
use crate::client::Client;
use crate::endpoint;
use crate::error::{Failure, denied, unavailable};
use crate::exchange::{Ask, Payload, Target};
use crate::manifest::Descriptor;
use crate::observe::Phase;
use crate::site::Site;
use berth_model::{Digest, Error, ErrorKind, Reference, Result};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are sent at once: what is lost when a connection breaks, and what a push holds in memory.
const CHUNK: u64 = 8 << 20;
/// Most that a registry may ask for.
const MAX_CHUNK: u64 = 64 << 20;
/// So much progress makes a failure a new one, with all its attempts.
const PROGRESS: u64 = 1 << 20;
/// Slowest way that is waited for, in bytes a second.
const SLOWEST: u64 = 32 << 10;
const OCTETS: &str = "application/octet-stream";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Least bytes of a chunk, where a registry has such a wish.
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A blob to push.
pub struct Upload {
    /// What it is.
    pub descriptor: Descriptor,
    /// Where its bytes are. They were checked when they came.
    pub file: PathBuf,
    /// A repository of the same registry that has it, most likely.
    pub from: Option<Reference>,
    /// Told how many bytes the registry has.
    pub tell: Box<dyn Fn(u64) + Send + Sync>,
}

/// How a blob got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// From another repository, without a transfer.
    Mounted,
    /// By sending it.
    Uploaded,
}

impl Client {
    /// Brings a blob into a repository. Errors: `PermissionDenied`; `Unknown` starting `RegistryUnavailable`; `FailedPrecondition` where
    /// the registry says that it received something else.
    pub async fn push_blob(&self, repo: &Reference, upload: &Upload, auth: &Auth) -> Result<Pushed> {
        let pusher = Pusher { client: self, site: self.home(repo.host()), repo, auth };
        let mut failed = 0;
        loop {
            match pusher.blob(upload).await {
                Ok(pushed) => {
                    (upload.tell)(upload.descriptor.size);
                    return Ok(pushed);
                }
                Err(failure) => {
                    failed += 1;
                    self.config().retry.wait(failed, failure, repo.host()).await?;
                }
            }
        }
    }

    /// Pushes a manifest or index under the tag of `target`, or by its digest where `target` has none. Everything it names is there
    /// by then. Errors: as [`Client::push_blob`].
    pub async fn push_manifest(&self, target: &Reference, media_type: &str, bytes: &Bytes, auth: &Auth) -> Result<()> {
        let digest = crate::verify::sha256(bytes);
        let name = target.tag().map_or_else(|| digest.to_string(), |t| t.as_str().to_owned());
        let pusher = Pusher { client: self, site: self.home(target.host()), repo: target, auth };
        let mut failed = 0;
        loop {
            match pusher.manifest(&name, media_type, bytes, &digest).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    failed += 1;
                    self.config().retry.wait(failed, failure, target.host()).await?;
                }
            }
        }
    }
}

struct Pusher<'a> {
    client: &'a Client,
    site: Site,
    repo: &'a Reference,
    auth: &'a Auth,
}

impl Pusher<'_> {
    async fn manifest(&self, name: &str, media_type: &str, bytes: &Bytes, digest: &Digest) -> Result<(), Failure> {
        let mut ask = self.ask(Method::PUT, Target::Path(format!("manifests/{name}")));
        ask.headers = vec![content_type(media_type)?];
        ask.payload = Payload::Bytes(bytes);
        self.check_digest(self.send(&ask).await?.headers(), digest)
    }

    /// One attempt, from the question whether it is there on.
    async fn blob(&self, upload: &Upload) -> Result<Pushed, Failure> {
        let digest = &upload.descriptor.digest;
        let mut head = self.ask(Method::HEAD, Target::Path(format!("blobs/{digest}")));
        // A redirect leads to where the content is.
        head.pass = &[404, 301, 302, 303, 307, 308];
        if self.send(&head).await?.status() != StatusCode::NOT_FOUND {
            return Ok(Pushed::Existed);
        }
        let opened = match &upload.from {
            Some(from) if from.host() == self.repo.host() && from.path() != self.repo.path() => {
                self.open(format!("blobs/uploads/?mount={digest}&from={}", from.path())).await
            }
            _ => self.open("blobs/uploads/".to_owned()).await,
        };
        let opened = match opened {
            // Some registries refuse the mount instead of opening a session; the repository may be one that we may not read.
            Err(_) if upload.from.is_some() => self.open("blobs/uploads/".to_owned()).await?,
            other => other?,
        };
        if opened.status() == StatusCode::CREATED {
            self.check_digest(opened.headers(), digest)?;
            return Ok(Pushed::Mounted);
        }
        let file = Arc::new(File::open(&upload.file).map_err(|e| Error::from(e).context(upload.file.display()))?);
        let location = self.location(&self.root().await?, opened.headers())?;
        let least = header_number(opened.headers(), &CHUNK_MIN).unwrap_or(0).min(MAX_CHUNK);
        self.transfer(upload, file, location, CHUNK.max(least)).await.map(|()| Pushed::Uploaded)
    }

    async fn open(&self, path: String) -> Result<Response<Incoming>, Failure> {
        self.send(&self.ask(Method::POST, Target::Path(path))).await
    }

    /// Sends all of a blob: at once where it is small, in chunks else.
    async fn transfer(&self, upload: &Upload, file: Arc<File>, mut location: Uri, chunk: u64) -> Result<(), Failure> {
        let (size, digest) = (upload.descriptor.size, &upload.descriptor.digest);
        let mut sent = 0;
        let mut body = Bytes::new();
        if size <= chunk {
            body = read(file, 0, size).await?;
        } else {
            // Where attempts were last counted from. It only grows: one that takes a byte and fails, or forgets what it had, is not
            // followed for ever.
            let (mut mark, mut failed) = (0, 0);
            while sent < size {
                let step = chunk.min(size - sent);
                let bytes = read(file.clone(), sent, step).await?;
                let trouble = match self.patch(&location, sent, &bytes).await {
                    Ok((next, received)) => {
                        (location, sent) = (next, received.filter(|n| *n > sent && *n <= size).unwrap_or(sent + step));
                        None
                    }
                    Err(Failure::Final(e)) => return Err(Failure::Final(e)),
                    Err(again) => Some(again),
                };
                if sent >= mark + PROGRESS || sent == size {
                    (mark, failed) = (sent, 0);
                }
                let slow = || Failure::Again(unavailable(self.repo.host(), "takes next to nothing of an upload"), None);
                let resumes = trouble.is_some();
                if let Some(again) = trouble.or_else(|| (sent != mark).then(slow)) {
                    failed += 1;
                    self.client.config().retry.wait(failed, again, self.repo.host()).await?;
                }
                if resumes {
                    (location, sent) = self.resume(&location, sent).await?;
                }
                (upload.tell)(sent);
            }
        }
        let uri = with_query(&location, &format!("digest={}", digest.as_str().replace(':', "%3A")))?;
        let mut ask = self.ask(Method::PUT, Target::Location(uri));
        ask.headers = vec![content_type(OCTETS)?];
        ask.payload = Payload::Bytes(&body);
        ask.patience = patience(body.len());
        self.check_digest(self.send(&ask).await?.headers(), digest)
    }

    /// One chunk; where to send the next one, and how much the registry has.
    async fn patch(&self, location: &Uri, from: u64, bytes: &Bytes) -> Result<(Uri, Option<u64>), Failure> {
        let mut ask = self.ask(Method::PATCH, Target::Location(location.clone()));
        let range = format!("{from}-{}", (from + bytes.len() as u64).saturating_sub(1));
        ask.headers = vec![content_type(OCTETS)?, (CONTENT_RANGE, HeaderValue::from_str(&range).map_err(internal)?)];
        ask.payload = Payload::Bytes(bytes);
        ask.patience = patience(bytes.len());
        let response = self.send(&ask).await?;
        Ok((self.location(location, response.headers())?, received(response.headers())))
    }

    /// Where a session stands after a failure. One that is gone ends the attempt; the next one begins with a new session.
    async fn resume(&self, location: &Uri, sent: u64) -> Result<(Uri, u64), Failure> {
        let mut ask = self.ask(Method::GET, Target::Location(location.clone()));
        ask.pass = &[404];
        match self.send(&ask).await? {
            gone if gone.status() == StatusCode::NOT_FOUND => {
                Err(Failure::Again(unavailable(self.repo.host(), "has lost an upload"), None))
            }
            response => {
                let next = self.location(location, response.headers()).unwrap_or_else(|_| location.clone());
                Ok((next, received(response.headers()).unwrap_or(sent)))
            }
        }
    }

    fn ask(&self, method: Method, target: Target) -> Ask<'_> {
        let ask = Ask::new(&self.site, self.repo, self.auth, Phase::Push, method, String::new());
        // What these mean to a push is said here.
        Ask { target, pass: &[405, 413, 416], ..ask }
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Failure> {
        let response = self.client.exchange().ask(ask).await?;
        let host = self.repo.host();
        match response.status().as_u16() {
            405 => Err(denied(&self.site, self.repo, "it takes no pushes (405)").into()),
            413 => {
                let text = format!("registry {host} takes no bodies of this size (413)");
                Err(Error::new(ErrorKind::ResourceExhausted, text).into())
            }
            // A chunk out of order: the session is asked how far it is.
            416 => Err(Failure::Again(unavailable(host, "answers 416"), None)),
            _ => Ok(response),
        }
    }

    async fn root(&self) -> Result<Uri, Failure> {
        let scheme = self.client.exchange().transport.scheme(&self.site).await?;
        format!("{scheme}://{}/", self.site.authority).parse().map_err(internal)
    }

    /// Where a session goes on, as the answer to a request says: the same protection as that request had, at least.
    fn location(&self, asked: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
        let refuse = |why: &str| Failure::Final(unavailable(self.repo.host(), why));
        let text = headers.get(LOCATION).and_then(|v| v.to_str().ok()).ok_or_else(|| refuse("opens no upload"))?;
        let next = endpoint::resolve_location(asked, text).ok_or_else(|| refuse("names no usable upload"))?;
        if endpoint::may_redirect(asked, &next) {
            return Ok(next);
        }
        Err(refuse("sends an upload to where a push must not follow"))
    }

    fn check_digest(&self, headers: &HeaderMap, expected: &Digest) -> Result<(), Failure> {
        match headers.get(CONTENT_DIGEST).and_then(|v| v.to_str().ok()) {
            Some(said) if said != expected.as_str() => {
                let text = format!("registry {} received {said} where {expected} was sent", self.repo.host());
                Err(Error::new(ErrorKind::FailedPrecondition, text).into())
            }
            _ => Ok(()),
        }
    }
}

/// Time for a body to go, beyond that for the answer.
fn patience(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / SLOWEST)
}

async fn read(file: Arc<File>, offset: u64, length: u64) -> Result<Bytes, Failure> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
    });
    match reading.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e)) => Err(Error::from(e).context("blob to push").into()),
        Err(e) => Err(Error::internal(format!("reading ended early: {e}")).into()),
    }
}

/// How many bytes a session has, as its `Range: 0-<last>` says.
fn received(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = text.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    // `0-0` is one byte by the letter, and none by registries that have just opened a session.
    if last == 0 { None } else { last.checked_add(1) }
}

fn header_number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn content_type(media_type: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    Ok((CONTENT_TYPE, HeaderValue::from_str(media_type).map_err(internal)?))
}

fn with_query(uri: &Uri, pair: &str) -> Result<Uri, Failure> {
    let joint = if uri.query().is_some() { '&' } else { '?' };
    format!("{uri}{joint}{pair}").parse().map_err(internal)
}

fn internal(e: impl std::fmt::Display) -> Failure {
    Error::internal(format!("registry request: {e}")).into()
}
