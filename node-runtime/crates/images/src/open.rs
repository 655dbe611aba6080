//! Start: the store as the last process left it, whole or killed.
//!
//! Owns: reading records, and sweeping what a crash left. Must not: fail for one bad record.
use crate::config::ImagesConfig;
use crate::layout::Layout;
use crate::quota::Quota;
use crate::record::{Bundle, ImageRecord};
use crate::state::{Blob, Kind, Snapshot, State};
use crate::tree::DiskUsage;
use crate::{Images, Inner, RootfsRecord};
use berth_model::{ContainerId, Digest, Result, ResultExt};
use berth_registry::Client;
use berth_store::{Database, Records};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What stands beside a snapshot's tree. Format: `docs/formats/images.md`.
#[derive(Serialize, Deserialize)]
pub struct SnapshotNote {
    kind: String,
    version: u32,
    chain_id: Digest,
    usage: DiskUsage,
}

impl SnapshotNote {
    const FILE: &str = "snapshot.json";
    const KIND: &str = "Snapshot";

    /// Writes the note into a snapshot that is being made.
    pub fn write(directory: &Path, chain_id: &Digest, usage: DiskUsage) -> Result<()> {
        let note = Self { kind: Self::KIND.into(), version: 1, chain_id: chain_id.clone(), usage };
        let bytes = serde_json::to_vec(&note).map_err(|e| berth_model::Error::internal(e.to_string()))?;
        let path = directory.join(Self::FILE);
        std::fs::write(&path, bytes).context(|| path.display())
    }

    fn read(directory: &Path) -> Option<Self> {
        let bytes = std::fs::read(directory.join(Self::FILE)).ok()?;
        serde_json::from_slice::<Self>(&bytes).ok().filter(|n| n.kind == Self::KIND)
    }
}

impl Images {
    /// Opens the store. What a crash left in the making is removed, in the background where it is large. Errors: a disk that cannot be
    /// read or written; never a single record. Former places of the store that nothing is left in are not used: [`Images::places`].
    pub fn open(config: ImagesConfig, database: Arc<Database>, client: Client) -> Result<Self> {
        let mut layout = Layout::create(&config.root, &config.former).context(|| "image store")?;
        for ingest in layout.all_ingest() {
            for entry in std::fs::read_dir(ingest)? {
                layout.discard(&entry?.path())?;
            }
        }
        let mut rootfs_records =
            layout.all_rootfs().map(|place| Records::open(place, "Rootfs", 1)).collect::<Result<Vec<_>>>()?;
        let mut state = State::default();
        state.opened_at = crate::now();
        // Backwards, so that of two records of one container the later place's counts.
        for records in rootfs_records.iter().rev() {
            state.rootfs.extend(load_rootfs(records)?);
        }
        let rootfs_records = rootfs_records.swap_remove(0);
        let snapshots = find_snapshots(&layout)?;
        let blobs = find_blobs(&layout)?;
        let (mut images, references) = load_images(&database, &snapshots)?;
        // An index with a blob that is lost cannot be handed on.
        let whole = |bundle: &Bundle| bundle.blobs.iter().chain([&bundle.index]).all(|blob| blobs.contains_key(blob));
        images.iter_mut().for_each(|image| image.bundle = image.bundle.take().filter(whole));
        state.load(images, references);
        let needed = state.needed(Kind::Snapshot);
        for (chain_id, usage) in snapshots {
            // Without a record nobody knows that it was synced.
            if needed.contains(&chain_id) {
                state.snapshots.insert(chain_id, Snapshot { usage, synced: true });
            } else {
                layout.discard(&layout.snapshot(&chain_id))?;
            }
        }
        let needed = state.needed(Kind::Blob);
        for (digest, blob) in blobs {
            if needed.contains(&digest) {
                state.blobs.insert(digest, blob);
            } else {
                layout.discard(&layout.blob(&digest))?;
            }
        }
        layout.forget_empty();
        let permits = config.limits.concurrent_blobs.max(1);
        let limits = std::sync::RwLock::new(Arc::new(config.limits.clone()));
        let keep_blobs = config.keep_layer_blobs.into();
        let inner = Inner {
            config,
            limits,
            layout: layout.clone(),
            database,
            client: tokio::sync::watch::Sender::new(client),
            rootfs_records,
            state: Mutex::new(state),
            usage: Default::default(),
            totals: Default::default(),
            quotas: layout.places().map(|place| Quota::probe(place)).collect::<Result<_>>()?,
            keep_blobs,
            flights: Default::default(),
            remembered: Default::default(),
            committing: Default::default(),
            collecting: Default::default(),
            placing: Default::default(),
            blob_permits: tokio::sync::Semaphore::new(permits),
            makers: Mutex::default(),
        };
        std::thread::Builder::new().name("trash".into()).spawn(move || {
            if let Err(e) = layout.empty_trash() {
                tracing::warn!(error = %e, "cannot remove what an earlier run left");
            }
        })?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn load_rootfs(records: &Records<RootfsRecord>) -> Result<HashMap<ContainerId, RootfsRecord>> {
    let loaded = records.load()?;
    for bad in &loaded.unreadable {
        // Its directory stays: the engine asks for its removal with the container's.
        tracing::warn!(container = %bad.id, problem = %bad.problem, "root filesystem without a readable record");
    }
    let known = loaded.records.into_iter().map(|(id, record)| (id, Some(record)));
    let unknown = loaded.unreadable.into_iter().map(|bad| (bad.id, None));
    let mut found = HashMap::new();
    for (id, record) in known.chain(unknown) {
        let Ok(id) = ContainerId::parse(&id) else { continue };
        // An owner without a record stands on nothing, and is still an owner that can be reconciled.
        let none = || RootfsRecord::of(Digest::from_bytes([0; 32]), Vec::new());
        found.insert(id, record.unwrap_or_else(none));
    }
    Ok(found)
}

/// Images whose record can be read and whose layers are all here, and their names.
#[expect(clippy::type_complexity, reason = "two lists, named at the only place of use")]
fn load_images(
    database: &Database,
    snapshots: &HashMap<Digest, DiskUsage>,
) -> Result<(Vec<ImageRecord>, Vec<(String, Digest)>)> {
    let mut images = Vec::new();
    for (id, bytes) in database.images_all()? {
        match ImageRecord::decode(&bytes) {
            Ok(record) if record.id.as_str() != id => tracing::warn!(image = %id, "record names another image"),
            Ok(record) if record.chain_ids().all(|c| snapshots.contains_key(c)) => images.push(record),
            Ok(_) => tracing::warn!(image = %id, "layers are missing on disk: it is pulled again when it is needed"),
            Err(e) => tracing::warn!(image = %id, error = %e, "image record cannot be read"),
        }
    }
    let named = database.references_all()?.into_iter();
    let references = named.filter_map(|(text, id)| Some((text, Digest::parse(&id).ok()?))).collect();
    Ok((images, references))
}

fn find_snapshots(layout: &Layout) -> Result<HashMap<Digest, DiskUsage>> {
    let mut found = HashMap::new();
    for (chain_id, path) in named_by_digest(layout, layout.all_snapshots())? {
        match SnapshotNote::read(&path) {
            // One that a former place has as well is of no use there.
            Some(note) if note.chain_id == chain_id && !found.contains_key(&chain_id) => {
                found.insert(chain_id, note.usage);
            }
            _ => layout.discard(&path)?,
        }
    }
    Ok(found)
}

fn find_blobs(layout: &Layout) -> Result<HashMap<Digest, Blob>> {
    let mut found = HashMap::new();
    for (digest, path) in named_by_digest(layout, layout.all_blobs())? {
        match found.entry(digest) {
            Entry::Vacant(free) => drop(free.insert(Blob::at(&path)?)),
            Entry::Occupied(_) => layout.discard(&path)?,
        }
    }
    Ok(found)
}

/// The entries of directories whose names are digests; others do not belong there and go.
fn named_by_digest(layout: &Layout, directories: impl Iterator<Item = PathBuf>) -> Result<Vec<(Digest, PathBuf)>> {
    let mut found = Vec::new();
    for directory in directories {
        add_named_by_digest(layout, &directory, &mut found)?;
    }
    Ok(found)
}

fn add_named_by_digest(layout: &Layout, directory: &Path, found: &mut Vec<(Digest, PathBuf)>) -> Result<()> {
    for entry in std::fs::read_dir(directory).context(|| directory.display())? {
        let entry = entry.context(|| directory.display())?;
        match entry.file_name().to_str().map(|n| Digest::parse(&format!("sha256:{n}"))) {
            Some(Ok(digest)) => found.push((digest, entry.path())),
            _ => layout.discard(&entry.path())?,
        }
    }
    Ok(())
}
