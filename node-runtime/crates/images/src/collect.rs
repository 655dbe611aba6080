//! Garbage collection: what no image, container or running pull needs goes.
//!
//! Owns: the sweep. Must not: stop pulls, or hold the table's lock while it waits for the disk. What a pull needs it has leased before it
//! looked whether it is here, and the sweep asks for leases under the lock under which it takes things out of the table.
use crate::Images;
use crate::state::{Kind, State};
use crate::tree::DiskUsage;
use berth_model::{Digest, Observation, Result};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs.
    pub blobs: usize,
    /// What they took.
    pub usage: DiskUsage,
}

/// What collections have removed since the daemon began.
#[derive(Debug, Default)]
pub struct Totals {
    runs: AtomicU64,
    snapshots: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

/// The same as plain figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionTotals {
    /// Collections.
    pub runs: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of both.
    pub bytes: u64,
}

impl Totals {
    fn add(&self, collected: &Collected) {
        let add = |total: &AtomicU64, more: u64| total.fetch_add(more, Ordering::Relaxed);
        add(&self.runs, 1);
        add(&self.snapshots, collected.snapshots as u64);
        add(&self.blobs, collected.blobs as u64);
        add(&self.bytes, collected.usage.bytes);
    }
}

impl Images {
    /// What collections have removed since the daemon began, whoever asked for them.
    pub fn collection_totals(&self) -> CollectionTotals {
        let Totals { runs, snapshots, blobs, bytes } = &self.inner.totals;
        let [runs, snapshots, blobs, bytes] = [runs, snapshots, blobs, bytes].map(|n| n.load(Ordering::Relaxed));
        CollectionTotals { runs, snapshots, blobs, bytes }
    }

    /// Removes what is not needed, and returns when the disk is free of it.
    pub async fn collect(&self) -> Result<Collected> {
        let _guard = self.inner.collecting.lock().await;
        let images = self.clone();
        let begun = Instant::now();
        let collected = self.blocking(move || {
            let collected = images.sweep()?;
            images.inner.layout.empty_trash()?;
            images.inner.totals.add(&collected);
            Ok(collected)
        });
        let collected = collected.await;
        let Collected { snapshots, blobs, usage } = collected.as_ref().copied().unwrap_or_default();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.inner.config.observer.tell(Observation::Collected {
            snapshots: count(snapshots),
            blobs: count(blobs),
            bytes: usage.bytes,
            took: begun.elapsed(),
            ok: collected.is_ok(),
        });
        collected
    }

    /// Takes what is not needed out of the table and out of its place, one thing after the other: nobody who looks at the table waits for
    /// the disk, and whoever makes the same thing again waits for that one thing alone.
    fn sweep(&self) -> Result<Collected> {
        let (snapshots, blobs) = {
            let mut state = self.state();
            let (chains, digests) = (state.needed(Kind::Snapshot), state.needed(Kind::Blob));
            let snapshots: Vec<Digest> = state.snapshots.keys().filter(|id| !chains.contains(*id)).cloned().collect();
            let blobs: Vec<Digest> = state.blobs.keys().filter(|id| !digests.contains(*id)).cloned().collect();
            (snapshots, blobs)
        };
        let layout = &self.inner.layout;
        let mut collected = Collected::default();
        for id in snapshots {
            let row = |s: &mut State| if s.is_needed(Kind::Snapshot, &id) { None } else { s.snapshots.remove(&id) };
            let taken = self.take(&layout.snapshot(&id), row)?;
            if let Some(snapshot) = taken {
                collected.snapshots += 1;
                collected.usage += snapshot.usage;
            }
        }
        for digest in blobs {
            let row = |state: &mut State| {
                if state.is_needed(Kind::Blob, &digest) {
                    return None;
                }
                state.passing.remove(&digest);
                state.blobs.remove(&digest)
            };
            let taken = self.take(&layout.blob(&digest), row)?;
            if let Some(blob) = taken {
                collected.blobs += 1;
                collected.usage += blob.usage;
            }
        }
        Ok(collected)
    }

    /// Takes one thing out of the table, unless somebody needs it by now, and out of its place. Errors: the disk's; the next start removes
    /// what stays there then.
    fn take<T>(&self, path: &Path, from: impl FnOnce(&mut State) -> Option<T>) -> Result<Option<T>> {
        let placing = self.placing();
        let taken = from(&mut self.state());
        if taken.is_none() {
            return Ok(None);
        }
        let aside = self.inner.layout.set_aside(path)?;
        drop(placing);
        aside.map_or(Ok(()), |path| self.inner.layout.remove(&path))?;
        Ok(taken)
    }

    /// Collects without making the caller wait. Outside of a runtime the next collection does it.
    pub(crate) fn sweep_later(&self) {
        self.sweep_after(Duration::ZERO);
    }

    /// The same after a while.
    pub(crate) fn sweep_after(&self, delay: Duration) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let images = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Err(e) = images.collect().await {
                tracing::warn!(error = %e, "cannot collect unused image data");
            }
        });
    }
}
