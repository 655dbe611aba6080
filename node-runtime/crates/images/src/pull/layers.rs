//! The layers of one pull: fetched and unpacked side by side, put in place from the bottom up.
//!
//! Owns: the parallelism and its end. A layer needs the ones below only when it is put in place, for the attributes of directories
//! that it implies. Must not: leave a thread running after the pull has ended.
use crate::flights::{Listeners, Wanted};
use crate::import::Spool;
use crate::layout::Temporary;
use crate::open::SnapshotNote;
use crate::record::LayerRecord;
use crate::state::Snapshot;
use crate::unpack::{self, Failed, Job, LayerPath, Unpacked, io};
use crate::{Images, refused, tree};
use berth_model::{
    ByteSource, Digest, Error, ErrorKind, Observation, PhaseLog, PullPhase, PullProgress, PullStage, Reference, Result,
    ResultExt,
};
use berth_registry::{Auth, BlobStream, Descriptor, ImageManifest, Liars};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, future};
use rustix::fs::{self, Mode, OFlags};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Chunks on their way from the network to the inflating thread.
const CHUNKS: usize = 32;
/// Progress of one blob is told so often.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Digits of a digest that name a layer to people.
const SHORT: usize = 12;

/// Where the bytes of layers come from.
#[derive(Clone)]
pub(crate) enum BlobSource {
    /// A repository of a registry.
    Registry {
        /// The repository.
        reference: Reference,
        /// Credentials for it.
        auth: Auth,
    },
    /// Files of an archive that is imported.
    Archive(Arc<Spool>),
}

/// What brings the layers of one image into place.
pub(crate) struct Assembly {
    pub images: Images,
    pub source: BlobSource,
    pub listeners: Listeners,
    pub wanted: Wanted,
    /// Where its phases are noted.
    pub log: PhaseLog,
}

/// How far a layer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Working,
    InPlace,
    /// It, or another one, failed.
    Failed,
}

/// One layer of the pull.
struct Layer<'a> {
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
    chain_ids: &'a [Digest],
    index: usize,
}

/// What the layers of one pull share.
struct Crew {
    progress: Vec<watch::Sender<Progress>>,
    failure: Mutex<Option<Error>>,
    image_bytes: Arc<AtomicU64>,
}

impl Crew {
    /// Keeps the first error and stops all others.
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        for layer in &self.progress {
            layer.send_if_modified(|p| std::mem::replace(p, Progress::Failed) != Progress::Failed);
        }
    }

    fn cancelled() -> Error {
        Error::new(ErrorKind::Unavailable, "another layer of the image failed")
    }
}

impl Layer<'_> {
    fn chain_id(&self) -> &Digest {
        &self.chain_ids[self.index]
    }

    fn item(&self) -> &str {
        &self.descriptor.digest.hex()[..SHORT]
    }
}

impl Assembly {
    fn tell(&self, item: &str, stage: PullStage, current: u64, total: u64) {
        self.listeners.tell(&PullProgress { item: item.to_owned(), stage, current, total });
    }

    fn took(&self, name: &str, phase: PullPhase, begun: Instant, took: Duration) {
        // What an archive takes is no registry's doing.
        if let BlobSource::Registry { reference, .. } = &self.source {
            self.log.add_lasting(format!("pull/fetch/{name}"), begun, took);
            self.images.inner.config.observer.tell(Observation::PullPhase { registry: reference.host(), phase, took });
        }
    }

    /// Brings all layers into place. When one fails the others stop, and this returns when the last thread has.
    pub(crate) async fn layers(
        &self,
        manifest: &ImageManifest,
        diff_ids: &[Digest],
        chain_ids: &[Digest],
    ) -> Result<Vec<LayerRecord>> {
        let crew = Crew {
            progress: diff_ids.iter().map(|_| watch::channel(Progress::Working).0).collect(),
            failure: Mutex::default(),
            image_bytes: Arc::default(),
        };
        let tasks = manifest.layers.iter().zip(diff_ids).enumerate().map(|(index, (descriptor, diff_id))| {
            let crew = &crew;
            async move {
                match self.layer(&Layer { descriptor, diff_id, chain_ids, index }, crew).await {
                    Ok(()) => drop(crew.progress[index].send_if_modified(|p| match *p {
                        Progress::Working => {
                            *p = Progress::InPlace;
                            true
                        }
                        _ => false,
                    })),
                    Err(e) => crew.fail(e),
                }
            }
        });
        // Each layer ends where it can, and this waits for that.
        let mut wanted = self.wanted.clone();
        let mut all = std::pin::pin!(future::join_all(tasks));
        tokio::select! {
            _ = &mut all => {}
            () = wanted.given_up() => {
                crew.fail(super::given_up());
                all.await;
            }
        }
        // What inflating needed. Nobody waits for that.
        drop(tokio::task::spawn_blocking(berth_sys::memory::give_back));
        if let Some(e) = crew.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(e);
        }
        let state = self.images.state();
        let records = manifest.layers.iter().zip(diff_ids).zip(chain_ids).map(|((descriptor, diff_id), chain_id)| {
            let snapshot =
                state.snapshots.get(chain_id).ok_or_else(|| Error::internal(format!("snapshot {chain_id} is gone")))?;
            Ok(LayerRecord {
                chain_id: chain_id.clone(),
                diff_id: diff_id.clone(),
                digest: descriptor.digest.clone(),
                size: descriptor.size,
                usage: snapshot.usage,
            })
        });
        records.collect()
    }

    async fn layer(&self, layer: &Layer<'_>, crew: &Crew) -> Result<()> {
        let maker = self.images.maker(layer.chain_id());
        // Two pulls that share a layer: the second one waits here, and then finds it. Locks are taken from the top of a stack
        // to its bottom only, so they cannot wait for each other in a circle.
        let mut progress = crew.progress[layer.index].subscribe();
        let _making = tokio::select! {
            _ = progress.wait_for(|p| *p == Progress::Failed) => return Err(Crew::cancelled()),
            making = maker.lock() => making,
        };
        if self.images.state().snapshots.contains_key(layer.chain_id()) {
            self.tell(layer.item(), PullStage::Exists, layer.descriptor.size, layer.descriptor.size);
            self.images.inner.config.observer.tell(Observation::Layer { shared: true });
            let (source, bytes) = (ByteSource::Present, layer.descriptor.size);
            self.images.inner.config.observer.tell(Observation::PullBytes { source, bytes });
            return Ok(());
        }
        let (directory, unpacked) = {
            let _permit = tokio::select! {
                _ = progress.wait_for(|p| *p == Progress::Failed) => return Err(Crew::cancelled()),
                permit = self.images.inner.blob_permits.acquire() => permit.map_err(|e| Error::internal(e.to_string()))?,
            };
            self.download(layer, crew).await?
        };
        self.images.inner.config.observer.tell(Observation::Layer { shared: false });
        if let Some(below) = layer.index.checked_sub(1) {
            let mut progress = crew.progress[below].subscribe();
            let reached = progress.wait_for(|p| *p != Progress::Working).await.map(|p| *p);
            if !matches!(reached, Ok(Progress::InPlace)) {
                return Err(Crew::cancelled());
            }
        }
        let (images, chain_ids) = (self.images.clone(), layer.chain_ids[..=layer.index].to_vec());
        let begun = Instant::now();
        self.images.blocking(move || images.put_in_place(directory, &unpacked, &chain_ids)).await?;
        self.took(&format!("{} place", layer.item()), PullPhase::Unpack, begun, begun.elapsed());
        self.tell(layer.item(), PullStage::Done, layer.descriptor.size, layer.descriptor.size);
        Ok(())
    }

    async fn blob(&self, descriptor: &Descriptor, liars: &Liars) -> Result<Incoming> {
        match &self.source {
            BlobSource::Registry { reference, auth } => {
                let opened = self.images.client().honest_blob(reference, descriptor, auth, 0, liars).await;
                opened.map(Incoming::Registry).map_err(|e| foreign(descriptor, e))
            }
            BlobSource::Archive(spool) => spool.stream(descriptor).map(|stream| Incoming::Archive(stream.boxed())),
        }
    }

    /// Fetches and unpacks, again where a mirror lied: none is asked twice for one layer, so this ends.
    async fn download(&self, layer: &Layer<'_>, crew: &Crew) -> Result<(Temporary, Unpacked)> {
        let mut liars = Liars::default();
        loop {
            let (unpacked, mirrors) = self.attempt(layer, crew, &liars).await?;
            match (unpacked, &self.source) {
                (Ok(done), _) => return Ok(done),
                (Err(failed), BlobSource::Registry { reference, .. })
                    if failed.altered && self.images.client().blame_all(reference, &mirrors, &mut liars) => {}
                (Err(failed), _) => return Err(failed.error),
            }
        }
    }

    /// Fetches and unpacks at the same time. Also the mirrors that bytes came from.
    async fn attempt(&self, layer: &Layer<'_>, crew: &Crew, liars: &Liars) -> Result<(Attempt, Vec<String>)> {
        let mut progress = crew.progress[layer.index].subscribe();
        let (begun, mut fetching) = (Instant::now(), Duration::ZERO);
        let mut stream = tokio::select! {
            _ = progress.wait_for(|p| *p == Progress::Failed) => return Err(Crew::cancelled()),
            stream = self.blob(layer.descriptor, liars) => stream?,
        };
        let (sender, chunks) = mpsc::channel::<Result<Bytes>>(CHUNKS);
        // An archive's files are moved into the store when all of its images are unpacked.
        let keep = matches!(self.source, BlobSource::Registry { .. }) && self.images.keeps_layer_blobs();
        let work = self.images.unpacker(layer, crew, chunks, keep);
        let unpacking = tokio::task::spawn_blocking(work);
        let (mut seen, mut told) = (0, Instant::now());
        let total = layer.descriptor.size;
        fetching += begun.elapsed();
        loop {
            let asked = Instant::now();
            let chunk = tokio::select! {
                _ = progress.wait_for(|p| *p == Progress::Failed) => Some(Err(Crew::cancelled())),
                chunk = stream.next() => chunk,
            };
            fetching += asked.elapsed();
            let Some(chunk) = chunk else { break };
            let ended = chunk.is_err();
            seen += chunk.as_ref().map_or(0, |c| c.len() as u64);
            // The unpacking side gives up first only with an error of its own.
            if sender.send(chunk).await.is_err() || ended {
                break;
            }
            if told.elapsed() >= TELL_EVERY {
                self.tell(layer.item(), PullStage::Downloading, seen, total);
                told = Instant::now();
            }
        }
        drop(sender);
        self.tell(layer.item(), PullStage::Unpacking, seen, total);
        let unpacked = unpacking.await.map_err(|e| Error::internal(format!("unpacking ended early: {e}")))?;
        // Both went on side by side: what was not waited for the network was waited for the disk.
        self.took(&format!("{} fetch", layer.item()), PullPhase::Fetch, begun, fetching);
        let unpacking = begun.elapsed().saturating_sub(fetching);
        self.took(&format!("{} unpack", layer.item()), PullPhase::Unpack, begun + fetching, unpacking);
        Ok((unpacked, stream.mirrors()))
    }
}

/// How one attempt at a layer ended.
type Attempt = Result<(Temporary, Unpacked), Failed>;

/// A layer's bytes on their way.
enum Incoming {
    Registry(BlobStream),
    Archive(BoxStream<'static, Result<Bytes>>),
}

impl Incoming {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        match self {
            Self::Registry(stream) => stream.next().await,
            Self::Archive(stream) => stream.next().await,
        }
    }

    fn mirrors(&self) -> Vec<String> {
        match self {
            Self::Registry(stream) => stream.mirrors(),
            Self::Archive(_) => Vec::new(),
        }
    }
}

/// What is missing of a layer that its publisher keeps back is told so.
fn foreign(layer: &Descriptor, e: Error) -> Error {
    if !layer.is_foreign() || e.kind() != ErrorKind::NotFound {
        return e;
    }
    let text = format!(
        "{} is a foreign layer ({}), which its registry does not have; content is taken from the registry alone, never from URLs in a \
         manifest: push the image with its foreign layers (docker: allow-nondistributable-artifacts)",
        layer.digest, layer.media_type
    );
    refused("layer", text)
}

impl Images {
    /// The lock of whoever makes a snapshot.
    fn maker(&self, chain_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut makers = self.inner.makers.lock().unwrap_or_else(PoisonError::into_inner);
        makers.retain(|_, maker| maker.strong_count() > 0);
        if let Some(maker) = makers.get(chain_id).and_then(Weak::upgrade) {
            return maker;
        }
        let maker = Arc::new(tokio::sync::Mutex::new(()));
        makers.insert(chain_id.clone(), Arc::downgrade(&maker));
        maker
    }

    /// The blocking part of a layer. Whatever happens to the pull, the thread itself removes what it made when it fails.
    fn unpacker(
        &self,
        layer: &Layer<'_>,
        crew: &Crew,
        chunks: unpack::Chunks,
        keep: bool,
    ) -> impl FnOnce() -> Attempt + Send + 'static {
        let images = self.clone();
        let Descriptor { digest, size, .. } = layer.descriptor.clone();
        let (diff_id, chain_id) = (layer.diff_id.clone(), layer.chain_id().clone());
        let image_bytes = crew.image_bytes.clone();
        move || {
            let layout = &images.inner.layout;
            let directory = layout.temporary_directory()?;
            let target = directory.path().join("fs");
            std::fs::DirBuilder::new().mode(0o755).create(&target).context(|| target.display())?;
            let (blob_file, blob) = match keep {
                true => layout.temporary_file().map(|(t, f)| (Some(t), Some(f)))?,
                false => (None, None),
            };
            let limits = (&*images.limits()).into();
            let job = Job { digest: digest.clone(), size, diff_id, target, blob, limits, image_bytes };
            let mut unpacked = unpack::unpack(job, chunks)?;
            if let Some(file) = blob_file {
                images.place_blob(file, &digest)?;
            }
            // As the kernel counts, with the note and the directory that holds both; the note's own figures change no block of it.
            SnapshotNote::write(directory.path(), &chain_id, unpacked.usage)?;
            unpacked.usage = tree::usage(directory.path())?;
            SnapshotNote::write(directory.path(), &chain_id, unpacked.usage)?;
            Ok((directory, unpacked))
        }
    }

    /// Gives a layer its place among the snapshots. The last of `chain_ids` is its own; those below are in place.
    fn put_in_place(&self, directory: Temporary, unpacked: &Unpacked, chain_ids: &[Digest]) -> Result<()> {
        let Some((own, below)) = chain_ids.split_last() else { return Err(refused("layer", "has no chain id")) };
        self.inherit(&directory, &unpacked.implied, below)?;
        let _placing = self.placing();
        let place = self.inner.layout.new_snapshot(own);
        // What a sweep could not remove, and has taken out of the table.
        self.inner.layout.discard(&place)?;
        directory.commit(&place)?;
        self.state().snapshots.insert(own.clone(), Snapshot { usage: unpacked.usage, synced: false });
        Ok(())
    }

    fn inherit(&self, directory: &Temporary, implied: &[LayerPath], below: &[Digest]) -> Result<()> {
        if implied.is_empty() {
            return Ok(());
        }
        let open = |path: &std::path::Path| {
            fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .map_err(io)
                .context(|| path.display())
        };
        let root = open(&directory.path().join("fs"))?;
        let parents =
            below.iter().rev().map(|id| open(&self.inner.layout.snapshot_tree(id))).collect::<Result<Vec<_>>>()?;
        unpack::inherit(root.as_fd(), implied, &parents, rustix::process::geteuid().is_root())
    }
}
