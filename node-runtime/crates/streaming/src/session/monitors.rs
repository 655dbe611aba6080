//! Connections to pods' monitors, one for all sessions of a pod.
//!
//! Owns: sharing them, and waiting for the end of a task. Must not: start tasks.
use crate::protocol::MonitorPlace;
use berth_model::{Error, PodId, Result};
use berth_monitor_api::frame::Exit;
use berth_monitor_client::{Closed, Monitor};
use futures_util::FutureExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;

/// How long a monitor may take to accept: it lives already.
const CONNECT: Duration = Duration::from_secs(5);

/// The connections. Copies share them.
#[derive(Debug, Clone, Default)]
pub struct Monitors(Arc<Mutex<HashMap<String, Weak<Entry>>>>);

#[derive(Debug, Default)]
struct Entry(OnceCell<Monitor>);

impl Entry {
    /// Whether the connection is over. One that is being made is not.
    fn is_over(&self) -> bool {
        self.0.get().is_some_and(|monitor| monitor.closed().now_or_never().is_some())
    }
}

impl Monitors {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Weak<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, unless a session of the pod has already. From then on no end of a task is missed.
    pub async fn ends(&self, place: &MonitorPlace) -> Result<Ends> {
        let entry = {
            let mut table = self.table();
            table.retain(|_, entry| entry.strong_count() > 0);
            let living = table.get(&place.pod).and_then(Weak::upgrade).filter(|entry| !entry.is_over());
            let entry = living.unwrap_or_default();
            table.insert(place.pod.clone(), Arc::downgrade(&entry));
            entry
        };
        let connect = || async {
            let pod = PodId::parse(&place.pod)?;
            Monitor::connect(&place.directory, &pod, Instant::now() + CONNECT).await
        };
        let monitor = entry.0.get_or_try_init(connect).await?.clone();
        let exits = monitor.exits();
        Ok(Ends { monitors: self.clone(), place: place.clone(), monitor, exits, _entry: entry })
    }
}

/// Ends of a pod's tasks, from when it was made on.
pub struct Ends {
    monitors: Monitors,
    place: MonitorPlace,
    monitor: Monitor,
    exits: mpsc::UnboundedReceiver<(String, Exit)>,
    _entry: Arc<Entry>,
}

impl Ends {
    /// The connection, for requests.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Waits for the end of a task. Errors: `Internal` when the monitor has ended before it, `Unavailable` when it does not answer.
    pub async fn of(&mut self, task: &str) -> Result<Exit> {
        loop {
            // It may have ended before we began to listen.
            if let Some(exit) = self.ended(task).await? {
                return Ok(exit);
            }
            while let Some((id, exit)) = self.exits.recv().await {
                if id == task {
                    return Ok(exit);
                }
            }
            if self.monitor.closed().await == Closed::ProcessEnded {
                return Err(Error::internal(format!("the monitor of pod {} has ended", self.place.pod)));
            }
            *self = self.monitors.clone().ends(&self.place).await?;
        }
    }

    async fn ended(&mut self, task: &str) -> Result<Option<Exit>> {
        match self.monitor.list().await {
            Ok(tasks) => Ok(tasks.into_iter().find(|known| known.id == task).and_then(|known| known.exit)),
            // What ended the connection is looked at by the caller.
            Err(e) if self.monitor.closed().now_or_never().is_some() => {
                tracing::debug!("{e}");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}
