//! One pod in memory: its record, its monitor, and who waits for what.
pub(crate) mod rates;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod update;

use crate::events::{Events, Shape};
use crate::oom::Kills;
use crate::record::{ContainerRecord, PodRecord};
use berth_model::{ContainerId, Error, ErrorKind, PodId, Result, ResultExt};
use berth_monitor_api::frame::Exit;
use berth_oci::monitor::Monitor;
use berth_store::{Records, Sync};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pod and its one writer.
pub(crate) struct Pod {
    pub(crate) id: PodId,
    record: RwLock<Arc<PodRecord>>,
    /// Counts changes; whoever waits for a state watches this.
    version: watch::Sender<u64>,
    records: Arc<Records<PodRecord>>,
    events: Arc<Events>,
    /// Version on disk; the lock makes writes go out one by one, newest content each.
    saved: AsyncMutex<u64>,
    /// Held by stop and remove: one at a time.
    pub(crate) lifecycle: AsyncMutex<()>,
    /// Held by start and remove of one container.
    container_locks: Mutex<HashMap<ContainerId, Arc<AsyncMutex<()>>>>,
    monitor: Mutex<Option<Monitor>>,
    execs: Mutex<HashMap<String, oneshot::Sender<Exit>>>,
    /// Containers that are being started, with an end that came meanwhile: the start tells first how it went.
    starts: Mutex<HashMap<ContainerId, Option<Exit>>>,
    /// Containers whose stop signal was sent: it is sent once (container-creation 5).
    signalled: Mutex<HashSet<ContainerId>>,
    kills: Mutex<Kills>,
}

impl Pod {
    pub(crate) fn new(
        id: PodId,
        record: PodRecord,
        records: Arc<Records<PodRecord>>,
        events: Arc<Events>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            record: RwLock::new(Arc::new(record)),
            version: watch::Sender::new(1),
            records,
            events,
            saved: AsyncMutex::new(0),
            lifecycle: AsyncMutex::new(()),
            container_locks: Mutex::default(),
            monitor: Mutex::default(),
            execs: Mutex::default(),
            starts: Mutex::default(),
            signalled: Mutex::default(),
            kills: Mutex::default(),
        })
    }

    /// How many OOM kills of it were counted.
    pub(crate) fn kills(&self) -> MutexGuard<'_, Kills> {
        locked(&self.kills)
    }

    /// The record now.
    pub(crate) fn record(&self) -> Arc<PodRecord> {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The container's record now. Errors: `NotFound`.
    pub(crate) fn container(&self, id: &ContainerId) -> Result<ContainerRecord> {
        self.record().containers.get(id).cloned().ok_or_else(|| Error::not_found("container", id))
    }

    /// Changes the record in memory, at once visible to lists and told to subscribers, and then on disk.
    /// Errors: those of the disk; the change in memory stays, since it tells what is true.
    pub(crate) async fn update<T>(&self, sync: Sync, change: impl FnOnce(&mut PodRecord) -> T) -> Result<T> {
        let value = {
            let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
            let before = Shape::of(&record);
            let value = change(Arc::make_mut(&mut record));
            self.events.tell(&before, &self.id, &record);
            value
        };
        self.version.send_modify(|v| *v += 1);
        self.save(sync).await?;
        Ok(value)
    }

    /// Changes one container's record. Does nothing if it is gone.
    pub(crate) async fn update_container(
        &self,
        id: &ContainerId,
        sync: Sync,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<()> {
        self.update(sync, |record| {
            if let Some(container) = record.containers.get_mut(id) {
                change(container);
            }
        })
        .await
    }

    /// Changes what a container's record says of its figures, in memory alone: the next change takes it to the disk.
    pub(crate) fn note_container(&self, id: &ContainerId, change: impl FnOnce(&mut ContainerRecord)) {
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = Arc::make_mut(&mut record).containers.get_mut(id) {
            change(container);
        }
    }

    async fn save(&self, sync: Sync) -> Result<()> {
        let mut saved = self.saved.lock().await;
        let version = *self.version.borrow();
        if *saved >= version {
            return Ok(());
        }
        let (records, id, record) = (self.records.clone(), self.id.clone(), self.record());
        let written = tokio::task::spawn_blocking(move || records.write_synced(id.as_str(), &record, sync)).await;
        written
            .map_err(|e| Error::internal(e.to_string()))?
            .context(|| format!("record of pod {}", self.id.short()))?;
        *saved = version;
        Ok(())
    }

    /// Waits until `condition` holds for the record, at most `limit`. Returns whether it does.
    pub(crate) async fn wait_until(&self, limit: Duration, condition: impl Fn(&PodRecord) -> bool) -> bool {
        let mut version = self.version.subscribe();
        let holds = async {
            loop {
                version.borrow_and_update();
                if condition(&self.record()) {
                    return;
                }
                if version.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, holds).await.is_ok()
    }

    /// The lock that start and remove of one container share.
    pub(crate) fn container_lock(&self, id: &ContainerId) -> Arc<AsyncMutex<()>> {
        locked(&self.container_locks).entry(id.clone()).or_default().clone()
    }

    /// The monitor. Errors: `FailedPrecondition` when the pod has none (any more), `Unavailable` when it does not answer.
    pub(crate) fn monitor(&self) -> Result<Monitor> {
        locked(&self.monitor).clone().ok_or_else(|| {
            let pod = self.id.short();
            if self.record().monitor.is_some() {
                let problem = format!("the monitor of pod {pod} does not answer; try again, or stop the pod");
                return Error::new(ErrorKind::Unavailable, problem);
            }
            Error::new(ErrorKind::FailedPrecondition, format!("pod {pod} has no monitor: it is stopped"))
        })
    }

    pub(crate) fn set_monitor(&self, monitor: Option<Monitor>) {
        *locked(&self.monitor) = monitor;
    }

    /// Registers a command, so that its end is told.
    pub(crate) fn expect_exec(&self, id: &str) -> oneshot::Receiver<Exit> {
        let (tell, told) = oneshot::channel();
        locked(&self.execs).insert(id.to_owned(), tell);
        told
    }

    /// Tells the end of a command to whoever waits. Returns whether the id is that of a command.
    pub(crate) fn exec_ended(&self, id: &str, exit: Exit) -> bool {
        let waiting = locked(&self.execs).remove(id);
        waiting.is_some_and(|tell| {
            // The one who waited may have gone away; the command has ended all the same.
            let _ = tell.send(exit);
            true
        })
    }

    /// Nobody will tell the ends of commands any more: those who wait hear of it.
    pub(crate) fn drop_execs(&self) {
        locked(&self.execs).clear();
    }

    /// Forgets a command that never ran.
    pub(crate) fn forget_exec(&self, id: &str) {
        locked(&self.execs).remove(id);
    }

    /// From now on an end of the container is kept for [`Pod::end_start`].
    pub(crate) fn begin_start(&self, id: &ContainerId) {
        locked(&self.starts).insert(id.clone(), None);
    }

    /// Keeps an end that came while the container is being started. Returns whether it is.
    pub(crate) fn defer_exit(&self, id: &ContainerId, exit: Exit) -> bool {
        let mut starts = locked(&self.starts);
        let Some(kept) = starts.get_mut(id) else { return false };
        *kept = Some(exit);
        true
    }

    /// The start is over: the end that came meanwhile.
    pub(crate) fn end_start(&self, id: &ContainerId) -> Option<Exit> {
        locked(&self.starts).remove(id).flatten()
    }

    /// Whether this is the first stop signal for the container.
    pub(crate) fn first_signal(&self, id: &ContainerId) -> bool {
        locked(&self.signalled).insert(id.clone())
    }

    /// Whether somebody has asked for the container's end.
    pub(crate) fn was_signalled(&self, id: &ContainerId) -> bool {
        locked(&self.signalled).contains(id)
    }

    /// Forgets what is kept in memory for a container.
    pub(crate) fn forget_container(&self, id: &ContainerId) {
        locked(&self.container_locks).remove(id);
        locked(&self.signalled).remove(id);
    }

    /// Tells subscribers that the pod is gone.
    pub(crate) fn tell_deleted(&self) {
        self.events.tell_deleted(&self.id, &self.record());
    }

    /// Removes the record from disk, last of all.
    pub(crate) async fn erase(&self) -> Result<()> {
        let _saved = self.saved.lock().await;
        let (records, id) = (self.records.clone(), self.id.clone());
        let removed = tokio::task::spawn_blocking(move || records.remove(id.as_str())).await;
        removed.map_err(|e| Error::internal(e.to_string()))?
    }
}
