//! One range of a blob, over as many connections as it takes.
//!
//! Owns: ranges, lengths, stalls, resumption, the change to another site. Must not: know of other ranges.
use crate::auth::Auth;
use crate::blob::Liars;
use crate::client::{Client, Troubles};
use crate::error::{Failure, mismatch, unavailable};
use crate::exchange::{Ask, content_length, next_data};
use crate::manifest::Descriptor;
use crate::observe::{Observation, Phase};
use crate::range::parse_content_range;
use crate::site::{Need, Site};
use berth_model::{Error, Reference, Result};
use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Incoming;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So much progress makes a broken connection a new one, with all its attempts.
const PROGRESS: u64 = 1 << 20;
/// How long a body may take to end after its last byte.
const END: Duration = Duration::from_secs(1);

/// The mirrors that bytes of a blob came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin(Arc<Mutex<BTreeSet<String>>>);

impl Origin {
    pub fn mirrors(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, site: &Site) {
        if let Some(mirror) = &site.mirror {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !all.contains(mirror) {
                all.insert(mirror.clone());
            }
        }
    }
}

/// A body on its way.
struct Body {
    incoming: Incoming,
    /// Bytes to throw away first: the registry does not do ranges.
    skip: u64,
    /// The window of stall detection: time waited in it and bytes that came.
    waited: Duration,
    came: u64,
}

pub(crate) struct Fetch {
    client: Client,
    repo: Reference,
    descriptor: Descriptor,
    auth: Auth,
    sites: Vec<Arc<Site>>,
    /// Which of them is asked.
    current: usize,
    troubles: Troubles,
    origin: Origin,
    lanes: bool,
    /// Only this range is of use: an answer with all of the blob is a failure.
    strict: bool,
    /// Next byte wanted, and the one behind the last.
    at: u64,
    end: u64,
    /// Where attempts were last counted from.
    mark: u64,
    failed: u32,
    body: Option<Body>,
}

impl Fetch {
    /// Errors: `InvalidArgument` where no site may be asked; `FailedPrecondition` where all of them have lied.
    pub fn new(client: &Client, repo: &Reference, descriptor: &Descriptor, auth: &Auth, liars: &Liars) -> Result<Self> {
        let mut sites = client.sites(repo.host(), Need::Content)?;
        sites.retain(|site| !liars.has(site.mirror.as_ref()));
        if sites.is_empty() {
            return Err(mismatch(format!("blob {}: every mirror served other content", descriptor.digest)));
        }
        Ok(Self {
            client: client.clone(),
            repo: repo.clone(),
            descriptor: descriptor.clone(),
            auth: auth.clone(),
            sites,
            current: 0,
            troubles: Troubles::default(),
            origin: Origin::default(),
            lanes: false,
            strict: false,
            at: 0,
            end: descriptor.size,
            mark: 0,
            failed: 0,
            body: None,
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// Wants connections of its own.
    pub fn lanes(&mut self, lanes: bool) {
        self.lanes = lanes;
    }

    /// Turns to another range.
    pub fn aim(&mut self, at: u64, end: u64) {
        (self.at, self.end, self.mark, self.failed, self.body) = (at, end, at, 0, None);
    }

    /// A fetch of another range, beginning at the site that serves this one.
    pub fn another(&self, at: u64, end: u64) -> Self {
        Self {
            client: self.client.clone(),
            repo: self.repo.clone(),
            descriptor: self.descriptor.clone(),
            auth: self.auth.clone(),
            sites: self.sites.clone(),
            current: self.current.min(self.sites.len().saturating_sub(1)),
            troubles: Troubles::default(),
            origin: self.origin.clone(),
            lanes: self.lanes,
            strict: true,
            at,
            end,
            mark: at,
            failed: 0,
            body: None,
        }
    }

    /// All pieces of the range.
    pub async fn whole(mut self) -> Result<Vec<Bytes>> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.piece().await? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// The next piece; `None` at the end of the range.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(mut body) = self.body.take() else {
                if self.at == self.end {
                    return Ok(None);
                }
                self.open().await?;
                continue;
            };
            if self.at == self.end {
                self.expect_end(body).await?;
                // Headers prove nothing: a mirror that breaks off each transfer sends them too.
                self.client.note(self.site(), Ok(()));
                return Ok(None);
            }
            match self.read(&mut body).await {
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    if self.at > self.end {
                        return Err(self.too_long());
                    }
                    let place = self.site().place();
                    self.client.tell(&Observation::Bytes { place, count: bytes.len() as u64 });
                    self.body = Some(body);
                    return Ok(Some(bytes));
                }
                Ok(None) => {
                    let e = unavailable(self.site().name(), "ended a blob too early");
                    self.pause(Failure::Again(e, None)).await?;
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    fn site(&self) -> &Site {
        &self.sites[self.current.min(self.sites.len() - 1)]
    }

    /// Waits before the next attempt, turns to the next site, or ends with the failure.
    async fn pause(&mut self, failure: Failure) -> Result<()> {
        if self.at - self.mark >= PROGRESS {
            self.failed = 0;
        }
        let begun = self.at > self.mark;
        self.mark = self.at;
        self.failed += 1;
        let site = Arc::clone(&self.sites[self.current]);
        let alone = site.mirror.is_none() || self.current + 1 == self.sites.len();
        let most = if alone { u32::MAX } else { 1 + u32::from(begun) };
        let policy = self.client.config().retry.with_attempts(most);
        let Err(e) = policy.wait(self.failed, failure, site.name()).await else {
            self.client.tell(&Observation::Retry { place: site.place() });
            return Ok(());
        };
        self.client.note(&site, Err(&e));
        self.troubles.add(&site, e);
        self.failed = 0;
        if self.current + 1 < self.sites.len() {
            self.current += 1;
            return Ok(());
        }
        Err(std::mem::take(&mut self.troubles).verdict(self.repo.host()))
    }

    /// Asks for the rest of the range, with the attempts and sites that are left.
    pub async fn open(&mut self) -> Result<()> {
        loop {
            match self.open_once().await {
                Ok(body) => {
                    self.body = Some(body);
                    self.origin.add(self.site());
                    return Ok(());
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    async fn open_once(&mut self) -> Result<Body, Failure> {
        let site = Arc::clone(&self.sites[self.current]);
        let whole = self.end == self.descriptor.size;
        let range = if whole { (self.at > 0).then_some((self.at, None)) } else { Some((self.at, Some(self.end))) };
        let path = format!("blobs/{}", self.descriptor.digest);
        let ask = Ask::new(&site, &self.repo, &self.auth, Phase::Blob, Method::GET, path);
        let response = self.client.exchange().ask(&Ask { range, lanes: self.lanes, ..ask }).await?;
        let (skip, due) = if response.status() == StatusCode::PARTIAL_CONTENT {
            (0, self.check_range(&site, response.headers())?)
        } else if self.strict {
            return Err(unavailable(site.name(), "sends all of a blob where a part was asked for").into());
        } else {
            self.end = self.descriptor.size;
            (self.at, self.end)
        };
        let announced = content_length(response.headers());
        if let Some(length) = announced.filter(|length| *length != due) {
            let Descriptor { digest, size, .. } = &self.descriptor;
            let name = site.name();
            let text = format!("blob {digest}: registry {name} announces {length} bytes where {due} of {size} are due");
            return Err(mismatch(text).into());
        }
        Ok(Body { incoming: response.into_body(), skip, waited: Duration::ZERO, came: 0 })
    }

    /// A partial answer must be the part that was asked for, or a beginning of it. Returns how many bytes it says to have.
    fn check_range(&self, site: &Site, headers: &HeaderMap) -> Result<u64, Failure> {
        let range = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match parse_content_range(range) {
            Some((first, last, total))
                if first == self.at && last < self.end && total.is_none_or(|t| t == self.descriptor.size) =>
            {
                Ok(last - first + 1)
            }
            _ => {
                let Descriptor { digest, size, .. } = &self.descriptor;
                let (name, at, end) = (site.name(), self.at, self.end - 1);
                let text = format!(
                    "blob {digest}: registry {name} answers with range {range:?} where {at}-{end}/{size} is due"
                );
                Err(mismatch(text).into())
            }
        }
    }

    /// The next bytes of the body that are wanted.
    async fn read(&self, body: &mut Body) -> Result<Option<Bytes>, Failure> {
        let timeouts = &self.client.config().timeouts;
        let (stall, least) = (timeouts.stall, timeouts.stall_bytes);
        loop {
            let before = Instant::now();
            let Some(mut bytes) = next_data(self.site().name(), &mut body.incoming, stall).await? else {
                return Ok(None);
            };
            // Only time spent waiting counts: a slow disk on our side is not the registry's stall.
            body.waited += before.elapsed();
            body.came += bytes.len() as u64;
            if body.waited >= stall {
                if body.came < least {
                    let what = format!(
                        "stalled in the middle of a blob: {} bytes came in {} ms, at least {least} are expected",
                        body.came,
                        stall.as_millis()
                    );
                    return Err(Failure::Again(unavailable(self.site().name(), what), None));
                }
                (body.waited, body.came) = (Duration::ZERO, 0);
            }
            let unwanted = body.skip.min(bytes.len() as u64);
            body.skip -= unwanted;
            let bytes = bytes.split_off(unwanted as usize);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All bytes are here; a body of unknown length must have no more. Reading the end also gives the connection back.
    async fn expect_end(&self, mut body: Body) -> Result<()> {
        match next_data(self.site().name(), &mut body.incoming, END).await {
            Ok(Some(bytes)) if !bytes.is_empty() => Err(self.too_long()),
            _ => Ok(()),
        }
    }

    fn too_long(&self) -> Error {
        let Descriptor { digest, size, .. } = &self.descriptor;
        let e = mismatch(format!("blob {digest} has more than the {size} bytes of its descriptor"));
        self.client.note(self.site(), Err(&e));
        e
    }
}
