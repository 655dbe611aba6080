//! What people at the node do with a container beside its life: signals, waiting for its end, its streams, and one more
//! attempt at it. The CRI has no calls for these.
use crate::container::exec::running;
use crate::container::start::Opening;
use crate::context::Engine;
use crate::pod::Pod;
use crate::pod::stop::run_to_end;
use berth_model::{ContainerConfig, ContainerId, Error, ErrorKind, ExitStatus, Result};
use berth_monitor_api::spec::TerminalSize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a wait lies at once; it is taken up again.
const WAIT: Duration = Duration::from_secs(3600);

/// The streams of a container's main process.
pub struct Attached {
    /// The container.
    pub id: ContainerId,
    /// With a terminal: its master, a copy of its output. Without: stdin if `stdin`, copies of stdout and stderr.
    pub fds: Vec<OwnedFd>,
    /// Whether the first is stdin.
    pub stdin: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Whether stdin is to be closed with the first client that attaches.
    pub stdin_once: bool,
}

impl Engine {
    /// Sends a signal to a container's first process. Errors: `NotFound`, `FailedPrecondition` when it does not run,
    /// `InvalidArgument` for what is no signal.
    pub async fn signal_container(self: &Arc<Self>, id: &str, signal: &str) -> Result<()> {
        let number = berth_oci::signal::parse(signal)?;
        let (pod, id) = self.table.container(id)?;
        running(&pod, &id)?;
        pod.monitor()?.signal(id.as_str(), number).await
    }

    /// Waits until a container has ended, and says how. Errors: `NotFound` also for one that is removed meanwhile.
    pub async fn wait_container(self: &Arc<Self>, id: &str) -> Result<ExitStatus> {
        let (pod, id) = self.table.container(id)?;
        loop {
            pod.wait_until(WAIT, |r| r.containers.get(&id).is_none_or(|c| c.exit().is_some())).await;
            if let Some(status) = pod.container(&id)?.exit() {
                return Ok(status.clone());
            }
        }
    }

    /// Opens the streams of a container's first process. Errors as [`Engine::signal_container`].
    pub async fn attach(self: &Arc<Self>, id: &str) -> Result<Attached> {
        let (pod, id) = self.table.container(id)?;
        let config = running(&pod, &id)?.config;
        let fds = pod.monitor()?.attach(id.as_str()).await?;
        Ok(Attached { stdin: config.tty || fds.len() > 2, tty: config.tty, stdin_once: config.stdin_once, fds, id })
    }

    /// Starts a container with its streams opened and its terminal at its size before its program is executed, so that nothing
    /// that it writes is missed. `size` is looked at where it has a terminal. Errors: those of a start.
    pub async fn start_attached(self: &Arc<Self>, id: &str, size: Option<TerminalSize>) -> Result<Attached> {
        let (pod, id) = self.table.container(id)?;
        let config = pod.container(&id)?.config;
        let (hand, taken) = oneshot::channel();
        let size = size.filter(|_| config.tty);
        self.start_opening(id.as_str(), Some(Opening { size, hand })).await?;
        let fds = taken.await.map_err(|_| Error::internal("a started container has no streams"))?;
        Ok(Attached { stdin: config.tty || fds.len() > 2, tty: config.tty, stdin_once: config.stdin_once, fds, id })
    }

    /// Tells a container's terminal its size.
    pub async fn resize_container(self: &Arc<Self>, id: &ContainerId, size: TerminalSize) -> Result<()> {
        let (pod, id) = self.table.container(id.as_str())?;
        pod.monitor()?.resize(id.as_str(), size.rows, size.cols).await
    }

    /// Closes a container's stdin.
    pub async fn close_stdin(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let (pod, id) = self.table.container(id.as_str())?;
        pod.monitor()?.close_stdin(id.as_str()).await
    }

    /// Stops a container if it runs, and makes and starts the next attempt at it, in the same pod and with the same
    /// configuration. The attempt that was there stays, ended; those before it are removed. Gives the new id.
    /// Errors: as create and start; the new container stays EXITED with the reason when it does not start.
    pub async fn restart_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<ContainerId> {
        let (pod, id) = self.table.container(id)?;
        let engine = self.clone();
        run_to_end(async move { engine.execute_restart(&pod, &id, grace).await }).await
    }

    async fn execute_restart(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<ContainerId> {
        let lock = pod.container_lock(id);
        let config = {
            // A start, an update or a removal that is under way is waited for. It does not keep off a second restart: both make an attempt
            // of one number, and the second one's create says so.
            let _one = lock.lock().await;
            next_attempt(pod, id)?
        };
        self.stop_container(id.as_str(), grace).await?;
        let new = self.create_container(pod.id.as_str(), config).await?;
        self.start_container(new.as_str()).await?;
        for old in earlier(pod, id) {
            self.remove_container(old.as_str()).await?;
        }
        Ok(new)
    }
}

/// The configuration of the attempt after the newest one.
fn next_attempt(pod: &Pod, id: &ContainerId) -> Result<ContainerConfig> {
    let record = pod.record();
    let mut config = pod.container(id)?.config;
    let attempts = record.containers.values().map(|c| &c.config.metadata).filter(|m| m.name == config.metadata.name);
    let newest = attempts.map(|m| m.attempt).max().unwrap_or(0);
    if newest != config.metadata.attempt {
        let problem = format!(
            "container {id} is attempt {}, and attempt {newest} is there; restart that one",
            config.metadata.attempt
        );
        return Err(Error::new(ErrorKind::FailedPrecondition, problem));
    }
    config.log_path = next_log(&config.log_path, newest);
    config.metadata.attempt = newest + 1;
    Ok(config)
}

/// A log that is named by its attempt, as the kubelet names it, gets the next one's name.
fn next_log(path: &str, attempt: u32) -> String {
    match path.strip_suffix(&format!("{attempt}.log")) {
        Some(before) if before.is_empty() || before.ends_with('/') => format!("{before}{}.log", attempt + 1),
        _ => path.to_owned(),
    }
}

/// Attempts of the same container before this one.
fn earlier(pod: &Pod, id: &ContainerId) -> Vec<ContainerId> {
    let record = pod.record();
    let Some(of) = record.containers.get(id).map(|c| &c.config.metadata) else { return Vec::new() };
    let older = |c: &&ContainerId| {
        let metadata = &record.containers[*c].config.metadata;
        metadata.name == of.name && metadata.attempt < of.attempt
    };
    record.containers.keys().filter(older).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_named_by_attempt() {
        assert_eq!(next_log("web/0.log", 0), "web/1.log");
        assert_eq!(next_log("9.log", 9), "10.log");
        assert_eq!(next_log("web/10.log", 0), "web/10.log");
        assert_eq!(next_log("web.log", 0), "web.log");
        assert_eq!(next_log("", 0), "");
    }
}
