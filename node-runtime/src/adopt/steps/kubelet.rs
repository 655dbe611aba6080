//! The kubelet is stopped and started, by the commands of its profile.
use super::command::{run, systemctl};
use super::{Node, verify};
use crate::kubelets;
use anyhow::{Result, bail};
use berth_adopt::plan::Profile;
use std::time::{Duration, Instant};

/// How long its commands may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to be gone, or there.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Ends it. A kubelet that does not run is fine.
pub(super) async fn stop(node: &Node<'_>) -> Result<()> {
    if kubelets::of_this_node().is_empty() {
        return Ok(());
    }
    run(node.layout, &node.plan.commands.stop, COMMAND_LIMIT).await?;
    until(|| kubelets::of_this_node().is_empty(), "the kubelet still runs after it was stopped").await
}

/// Starts it. One that runs is fine.
pub(super) async fn start(node: &Node<'_>) -> Result<()> {
    if node.plan.profile != Profile::Command {
        systemctl(node.layout, &["daemon-reload"]).await?;
    }
    if !kubelets::of_this_node().is_empty() {
        return Ok(());
    }
    run(node.layout, &node.plan.commands.start, COMMAND_LIMIT).await?;
    until(|| !kubelets::of_this_node().is_empty(), "no kubelet runs after it was started").await
}

/// The kubelet runs again as it did, and proves it.
pub(super) async fn back(node: &Node<'_>) -> Result<()> {
    if !node.same_boot && node.plan.profile != Profile::Command {
        // The node starts; its kubelet waits for whoever calls this.
        let unit = node.plan.commands.start.last().map(String::as_str).unwrap_or_default();
        return systemctl(node.layout, &["start", "--no-block", unit]).await;
    }
    start(node).await?;
    verify::is_on(node, &node.plan.from.socket, LIMIT).await
}

async fn until(holds: impl Fn() -> bool, otherwise: &str) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() > end {
            bail!("{otherwise} ({} s)", LIMIT.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
