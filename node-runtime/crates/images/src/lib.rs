//! Images on this node: pulled, verified, unpacked, kept as long as they are needed.
//!
//! Owns: the content store, the unpacking of layers, snapshots shared by chain id, the root filesystems of containers, garbage
//! collection. Must not: decide whether an image may be used (that is trust), mount anything (that is `berth-init`), or let a
//! list wait for a pull.
//!
//! One pull's way: [`Images::fetch`] joins an equal pull or starts a task ([`pull`]); blobs arrive in parallel and go through
//! [`unpack`] as they arrive, each layer into a directory of its own; one sync makes all of it durable; the record comes last
//! ([`commit`]). A crash leaves directories that nothing names, and the next start removes them ([`open`]).
#![forbid(unsafe_code)]

mod collect;
mod commit;
mod config;
mod df;
mod export;
mod flights;
mod history;
mod image_config;
mod import;
mod layout;
mod merged;
mod names;
mod open;
mod prune;
mod pull;
mod push;
mod quota;
mod record;
mod referrers;
mod refill;
mod remembered;
mod rootfs;
mod state;
mod tree;
mod unpack;
mod usage;
mod volume;

pub use collect::{Collected, CollectionTotals};
pub use config::{ImagesConfig, Limits};
pub use df::{ImageUsage, LayerUsage, StoreUsage};
pub use history::Step;
pub use import::{Approve, ImportRequest, Imported};
pub use layout::remove_place;
pub use names::Removed;
pub use prune::{Prune, Pruned, StoreLimits};
pub use pull::PullRequest;
pub use push::{PushOutcome, PushRequest};
pub use record::{Bundle, Evidence, ImageRecord, LayerRecord, Source};
pub use referrers::{FoundBy, ImageReferrer, ImageReferrers};
pub use rootfs::{ImageFile, ImageVolume, RootfsDirs, RootfsPlan, RootfsRecord, RootfsUsage};
pub use tree::DiskUsage;
pub use usage::FsUsage;

use berth_model::{Digest, Error, ErrorKind, Reference, Result, UnixNanos};
use berth_registry::{Auth, Client, Resolved};
use berth_store::{Database, Records};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use tokio::sync::watch;

/// The images of one root directory. Clones are the same store.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    config: ImagesConfig,
    layout: layout::Layout,
    database: Arc<Database>,
    /// The client of pulls that begin now; a pull under way keeps the one that it began with for each request.
    client: watch::Sender<Client>,
    /// The limits of pulls that begin now, and of layers that are unpacked from now on.
    limits: RwLock<Arc<Limits>>,
    rootfs_records: Records<RootfsRecord>,
    state: Mutex<state::State>,
    usage: usage::Readings,
    totals: collect::Totals,
    /// Of each place, in the layout's order.
    quotas: Vec<quota::Quota>,
    /// Whether layers' blobs stay after they were unpacked, for pulls that begin now.
    keep_blobs: AtomicBool,
    flights: flights::Flights,
    /// Credentials of pulls, for what must be fetched again.
    remembered: remembered::Remembered,
    /// Held while names and records change, so that each change is built on the one before.
    committing: tokio::sync::Mutex<()>,
    /// Held while the trash is emptied.
    collecting: tokio::sync::Mutex<()>,
    /// Held while a blob or snapshot gets its place and its row in the table, or loses both: what is made again while its former self is
    /// swept away waits here, and whoever only looks at the table does not. Taken before the table's own lock, by blocking threads alone.
    placing: Mutex<()>,
    /// How many blobs are on their way, in all pulls together.
    blob_permits: tokio::sync::Semaphore,
    /// Who makes which snapshot, so that two pulls do not make it twice.
    makers: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// What a reference stands for on its registry now. Errors: the registry client's.
    pub async fn resolve(&self, reference: &Reference, auth: &Auth) -> Result<Resolved> {
        self.client().resolve_remote(reference, auth).await
    }

    /// Takes another registry client: the settings have changed. Pulls use it from their next request on.
    pub fn set_client(&self, client: Client) {
        self.inner.client.send_replace(client);
    }

    /// Tells when there is another registry client: what failed with the former one may come off now.
    pub fn clients(&self) -> watch::Receiver<Client> {
        self.inner.client.subscribe()
    }

    /// Takes other limits: the settings have changed. How many blobs come at the same time stays.
    pub fn set_limits(&self, limits: Limits) {
        *self.inner.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// The limits now.
    pub fn limits(&self) -> Arc<Limits> {
        self.inner.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the compressed layers of images that are pulled from now on stay, to be pushed and exported.
    pub fn keep_layer_blobs(&self, keep: bool) {
        self.inner.keep_blobs.store(keep, Ordering::Relaxed);
    }

    /// Whether a limit of writable layers can be kept to. Errors: `FailedPrecondition` for one that nothing would enforce; containers
    /// are refused with the same words.
    pub fn check_writable_limit(&self, limit: Option<u64>) -> Result<()> {
        self.quota().check(limit)
    }

    /// The same of a store below `root` that may not be open yet.
    pub fn check_writable_limit_at(root: &std::path::Path, limit: Option<u64>) -> Result<()> {
        let existing = root.ancestors().find(|path| path.is_dir()).unwrap_or(root);
        limit.map_or(Ok(()), |_| quota::Quota::probe(existing)?.check(limit))
    }

    fn keeps_layer_blobs(&self) -> bool {
        self.inner.keep_blobs.load(Ordering::Relaxed)
    }

    /// The registry client now.
    fn client(&self) -> Client {
        self.inner.client.borrow().clone()
    }

    /// Where the store is, and then where it was before and something is left.
    pub fn places(&self) -> Vec<std::path::PathBuf> {
        self.inner.layout.places().cloned().collect()
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.state().images()
    }

    /// The image that a text stands for: an id or a unique prefix of it of 12 digits or more, with or without `sha256:`; or a
    /// reference as people write it. Errors: `InvalidArgument` for a text that is none of these.
    pub fn find(&self, text: &str) -> Result<Option<Arc<ImageRecord>>> {
        self.state().find(text)
    }

    fn placing(&self) -> MutexGuard<'_, ()> {
        self.inner.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, state::State> {
        // Nothing that holds the lock can fail half-way, so a panic elsewhere leaves it whole.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs blocking work off the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(e) => Err(Error::internal(format!("a task of the image store ended early: {e}"))),
        }
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Images({})", self.inner.layout.root().display())
    }
}

/// An image's content is not as it must be; pulling it again changes nothing.
fn refused(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, format!("{what}: {problem}"))
}

/// The time. Zero before 1970, which no clock of ours shows.
fn now() -> UnixNanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
