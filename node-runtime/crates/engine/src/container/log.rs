//! ReopenContainerLog: the new file is open before the monitor switches, and an error leaves none behind.
use crate::context::{Engine, blocking};
use crate::record::Life;
use berth_model::{Error, ErrorKind, Result};
use std::os::fd::AsFd;
use std::sync::Arc;

impl Engine {
    /// Switches a running container's log to a fresh file at its path.
    /// Errors: `FailedPrecondition` when it does not run or has no log.
    pub async fn reopen_log(self: &Arc<Self>, id: &str) -> Result<()> {
        let (pod, id) = self.table.container(id)?;
        let container = pod.container(&id)?;
        let refuse =
            |problem: &str| Err(Error::new(ErrorKind::FailedPrecondition, format!("container {id} {problem}")));
        if !matches!(container.life, Life::Running { .. }) {
            return refuse("is not running");
        }
        let Some(path) = container.log_path else { return refuse("has no log") };
        let monitor = pod.monitor()?;
        let opened = path.clone();
        let (log, fresh) = blocking(move || berth_oci::logs::open_fresh(&opened)).await?;
        let switched = monitor.reopen_log(id.as_str(), log.as_fd()).await;
        if switched.is_err() && fresh {
            blocking(move || Ok(std::fs::remove_file(path)?)).await?;
        }
        switched
    }
}
