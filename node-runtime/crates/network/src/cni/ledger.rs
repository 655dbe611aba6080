//! The attachments in memory: how far each has come, and which ones are to be deleted when.
//! Must not: do I/O.
use super::netns::Held;
use super::record::Stage;
use berth_model::PodId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longest pause before a DEL is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One attachment.
#[derive(Debug)]
pub(super) struct Entry {
    /// The network's name.
    pub(super) network: String,
    /// The interface's name.
    pub(super) interface: String,
    pub(super) stage: Stage,
    /// Held by whoever runs plugins for it.
    pub(super) lock: Arc<tokio::sync::Mutex<()>>,
    /// Set while it waits for a DEL in the background.
    pub(super) pending: Option<Pending>,
    /// What CHECK found.
    pub(super) check: Option<String>,
}

/// A DEL that is to be tried.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) due: Instant,
    pub(super) failures: u32,
    pub(super) problem: String,
    pub(super) running: bool,
    pub(super) netns: Option<Held>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<PodId, Entry>>);

impl Ledger {
    fn all(&self) -> MutexGuard<'_, HashMap<PodId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters one that begins, and gives its lock.
    pub(super) fn enter(
        &self,
        pod: &PodId,
        network: &str,
        interface: &str,
        stage: Stage,
    ) -> Arc<tokio::sync::Mutex<()>> {
        let lock = Arc::<tokio::sync::Mutex<()>>::default();
        let (network, interface) = (network.to_owned(), interface.to_owned());
        let entry = Entry { network, interface, stage, lock: lock.clone(), pending: None, check: None };
        self.all().insert(pod.clone(), entry);
        lock
    }

    /// Looks at one, or changes it.
    pub(super) fn with<T>(&self, pod: &PodId, look: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.all().get_mut(pod).map(look)
    }

    /// Every one that the closure has something to say of.
    pub(super) fn collect<T>(&self, mut look: impl FnMut(&PodId, &mut Entry) -> Option<T>) -> Vec<T> {
        self.all().iter_mut().filter_map(|(pod, entry)| look(pod, entry)).collect()
    }

    pub(super) fn remove(&self, pod: &PodId) {
        self.all().remove(pod);
    }

    /// Puts it among those to be deleted now, if it is not there.
    pub(super) fn postpone(&self, pod: &PodId, netns: Option<Held>) {
        self.with(pod, |entry| {
            entry.stage = Stage::Deleting;
            let fresh = Pending { due: Instant::now(), failures: 0, problem: String::new(), running: false, netns };
            entry.pending.get_or_insert(fresh);
        });
    }

    /// A DEL failed: when it is tried again, and how often it has failed.
    pub(super) fn failed(&self, pod: &PodId, problem: &str) -> u32 {
        let failures = self.with(pod, |entry| {
            let pending = entry.pending.as_mut()?;
            pending.failures = pending.failures.saturating_add(1);
            pending.running = false;
            problem.clone_into(&mut pending.problem);
            pending.due = Instant::now() + pause(pending.failures);
            Some(pending.failures)
        });
        failures.flatten().unwrap_or_default()
    }

    /// Those that are due, marked as running; and when the next one is.
    pub(super) fn take_due(&self) -> (Vec<PodId>, Option<Instant>) {
        let now = Instant::now();
        let mut next = None;
        let due = self.collect(|pod, entry| {
            let pending = entry.pending.as_mut().filter(|p| !p.running)?;
            if pending.due > now {
                next = Some(next.map_or(pending.due, |n: Instant| n.min(pending.due)));
                return None;
            }
            pending.running = true;
            Some(pod.clone())
        });
        (due, next)
    }

    /// Something changed that may help: all are due.
    pub(super) fn hurry(&self) {
        let now = Instant::now();
        self.collect(|_, entry| entry.pending.as_mut().map(|p| p.due = now));
    }
}

/// One second, then twice as long each time.
fn pause(failures: u32) -> Duration {
    let seconds = 1u64 << failures.saturating_sub(1).min(6);
    Duration::from_secs(seconds).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_del_is_due_again_later_and_later() {
        let ledger = Ledger::default();
        let pod = PodId::from_random([1; 32]);
        ledger.enter(&pod, "n", "eth0", Stage::Attached);
        assert_eq!(ledger.take_due(), (vec![], None), "what is attached stays");
        ledger.postpone(&pod, None);
        assert_eq!(ledger.take_due().0, std::slice::from_ref(&pod));
        assert_eq!(ledger.take_due(), (vec![], None), "one at a time");
        let mut waits = Vec::new();
        for _ in 0..9 {
            ledger.failed(&pod, "no agent");
            waits.push((ledger.take_due().1.unwrap() - Instant::now()).as_secs());
            ledger.hurry();
            assert_eq!(ledger.take_due().0.len(), 1);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        ledger.remove(&pod);
        ledger.postpone(&pod, None);
        assert_eq!(ledger.take_due(), (vec![], None));
    }
}
