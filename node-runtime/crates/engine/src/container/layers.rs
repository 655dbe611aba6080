//! Readings of writable layers: counted in the background, at most so often that counting costs little, and waited for a moment.
//!
//! Owns: when a layer is counted. Must not: count (that is the images' knowledge), keep a list waiting for a large layer.
use crate::clock;
use crate::context::Engine;
use berth_model::ContainerId;
use berth_stats::WritableLayer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A younger reading is as good as a new one: the kubelet decides on evictions every ten seconds.
const FRESH: Duration = Duration::from_secs(5);
/// A layer is counted again after so many times of what counting it took: at most a twentieth of a processor.
const REST: u32 = 20;
/// How long a list waits for countings; those that take longer are in the next one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Layers that are counted at once: more would only compete for the disk.
const AT_ONCE: usize = 2;

/// Countings: those under way, and what each took last.
pub(crate) struct Layers {
    counted: Mutex<HashMap<ContainerId, Counting>>,
    slots: Semaphore,
}

#[derive(Clone, Copy)]
enum Counting {
    UnderWay,
    Took(Duration),
}

impl Default for Layers {
    fn default() -> Self {
        Self { counted: Mutex::default(), slots: Semaphore::new(AT_ONCE) }
    }
}

impl Layers {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Counting>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.lock().remove(id);
    }

    /// Takes note that a counting begins, unless one is under way or the last reading, of this age, still holds.
    fn begin(&self, id: &ContainerId, age: Option<Duration>) -> bool {
        let mut counted = self.lock();
        let holds = match (counted.get(id), age) {
            (Some(Counting::UnderWay), _) => true,
            (Some(Counting::Took(time)), Some(age)) => age <= FRESH.max(*time * REST),
            (None, Some(age)) => age <= FRESH,
            (_, None) => false,
        };
        if !holds {
            counted.insert(id.clone(), Counting::UnderWay);
        }
        !holds
    }

    fn end(&self, id: &ContainerId, took: Option<Duration>) {
        let mut counted = self.lock();
        match took {
            Some(time) => drop(counted.insert(id.clone(), Counting::Took(time))),
            None => drop(counted.remove(id)),
        }
    }
}

impl Engine {
    /// Last readings of these containers' layers, new where that takes a moment. One that was never counted is left out.
    pub(crate) async fn layers(self: &Arc<Self>, ids: Vec<ContainerId>) -> HashMap<ContainerId, WritableLayer> {
        let Ok(fs) = self.images.fs_usage() else { return HashMap::new() };
        let countings: Vec<JoinHandle<()>> = ids.iter().filter_map(|id| self.count_layer(id)).collect();
        // What is not done by then goes on, and is in the next list.
        let _ = tokio::time::timeout(PATIENCE, futures_util::future::join_all(countings)).await;
        let reading = |id: ContainerId| {
            let reading = self.images.last_rootfs_usage(&id)?;
            let layer = WritableLayer {
                taken_at: reading.at,
                file_system: fs.mountpoint.clone(),
                used_bytes: reading.usage.bytes,
                inodes_used: reading.usage.inodes,
            };
            Some((id, layer))
        };
        ids.into_iter().filter_map(reading).collect()
    }

    fn count_layer(self: &Arc<Self>, id: &ContainerId) -> Option<JoinHandle<()>> {
        let age = self.images.last_rootfs_usage(id).map(|reading| age(reading.at));
        if !self.layers.begin(id, age) {
            return None;
        }
        let (engine, id) = (self.clone(), id.clone());
        Some(tokio::spawn(async move {
            let _slot = engine.layers.slots.acquire().await;
            let begun = Instant::now();
            let counted = engine.images.rootfs_usage(&id, Duration::ZERO).await;
            if let Err(e) = &counted {
                tracing::debug!(container = %id, error = %e, "writable layer is not counted");
            }
            engine.layers.end(&id, counted.is_ok().then(|| begun.elapsed()));
        }))
    }
}

/// Since then; none if the clock was set back.
fn age(at: i64) -> Duration {
    Duration::from_nanos(u64::try_from(clock::now() - at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_counted_once_at_a_time_and_rests_in_proportion() {
        let (layers, id) = (Layers::default(), ContainerId::from_random([7; 32]));
        let seconds = Duration::from_secs;
        assert!(layers.begin(&id, None), "never counted");
        assert!(!layers.begin(&id, None), "one is under way");
        layers.end(&id, Some(seconds(1)));
        assert!(!layers.begin(&id, Some(seconds(20))), "it took a second, so it rests for twenty");
        assert!(layers.begin(&id, Some(seconds(21))));
        layers.end(&id, Some(Duration::from_millis(1)));
        assert!(!layers.begin(&id, Some(FRESH)));
        assert!(layers.begin(&id, Some(FRESH + seconds(1))));
        layers.end(&id, None);
        assert!(layers.begin(&id, None), "one that failed is tried again");
        layers.forget(&id);
        assert!(layers.begin(&id, None));
    }
}
