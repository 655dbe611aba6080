//! Garbage collection: what no image, container or running pull needs goes.
//!
//! Owns: the sweep. Must not: stop pulls. What a pull needs it has leased before it looked whether it is here, and the sweep
//! takes things out of the table under the same lock.
use crate::Images;
use crate::tree::DiskUsage;
use berth_model::{Observation, Result};
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

    /// Takes what is not needed out of the table and out of its place. Quick: renames only.
    fn sweep(&self) -> Result<Collected> {
        let layout = &self.inner.layout;
        let mut state = self.state();
        let needed = state.needed();
        let mut collected = Collected::default();
        let snapshots: Vec<_> = state.snapshots.keys().filter(|id| !needed.contains(*id)).cloned().collect();
        for id in snapshots {
            layout.discard(&layout.snapshot(&id))?;
            if let Some(snapshot) = state.snapshots.remove(&id) {
                collected.snapshots += 1;
                collected.usage += snapshot.usage;
            }
        }
        let blobs: Vec<_> = state.blobs.keys().filter(|digest| !needed.contains(*digest)).cloned().collect();
        for digest in blobs {
            layout.discard(&layout.blob(&digest))?;
            if let Some(blob) = state.blobs.remove(&digest) {
                collected.blobs += 1;
                collected.usage += blob.usage;
            }
        }
        Ok(collected)
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
