//! The kubelet is stopped and started, by the commands of its profile.
use super::command::{run, systemctl};
use super::{Node, verify};
use crate::kubelets;
use anyhow::{Result, bail};
use berth_adopt::Direction;
use berth_adopt::plan::Profile;
use std::time::{Duration, Instant};

/// How long its commands may take.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to be gone, or there.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How long one with other settings may take to be there: the node has none meanwhile, and it is known to start.
const CONFIGURED_LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// Ends it. A kubelet that does not run is fine, but its unit is stopped all the same: systemd may be about to start it again.
pub(super) async fn stop(node: &Node<'_>) -> Result<()> {
    if node.plan.profile == Profile::Command && kubelets::of_this_node().is_empty() {
        return Ok(());
    }
    run(node.layout, &node.plan.commands.stop, COMMAND_LIMIT).await?;
    until(LIMIT, || kubelets::of_this_node().is_empty(), "the kubelet still runs after it was stopped").await
}

/// Starts it. One that runs is fine; its unit is started all the same, which takes back a stop that systemd has not done yet.
pub(super) async fn start(node: &Node<'_>) -> Result<()> {
    if node.plan.profile == Profile::Command {
        if !kubelets::of_this_node().is_empty() {
            return Ok(());
        }
    } else {
        systemctl(node.layout, &["daemon-reload"]).await?;
        // One that died too often is not started otherwise.
        let _ = systemctl(node.layout, &["reset-failed", unit(node)]).await;
    }
    run(node.layout, &node.plan.commands.start, COMMAND_LIMIT).await?;
    let limit = if node.plan.direction == Direction::Configure { CONFIGURED_LIMIT } else { LIMIT };
    until(limit, || !kubelets::of_this_node().is_empty(), "no kubelet runs after it was started").await
}

fn unit<'a>(node: &'a Node<'_>) -> &'a str {
    node.plan.commands.start.last().map(String::as_str).unwrap_or_default()
}

/// The kubelet runs again as it did, and proves it. `stopped`: whether it is known to have ended before; else the command that was to
/// stop it may have been cut off, and what it has begun may still end the kubelet.
pub(super) async fn back(node: &Node<'_>, stopped: bool) -> Result<()> {
    if node.at_start {
        if node.plan.profile == Profile::Command {
            return start(node).await;
        }
        // The node starts; its kubelet waits for whoever calls this.
        return systemctl(node.layout, &["start", "--no-block", unit(node)]).await;
    }
    if node.plan.without_daemon {
        // It was on a runtime that does not answer; there is nothing that it could prove.
        return start(node).await;
    }
    let mut stopped = stopped;
    for last in [false, true] {
        if !stopped && let Err(e) = stop(node).await {
            node.talk.say(&format!("{e:#}"));
        }
        match begun(node).await {
            Err(e) if !last => node.talk.say(&format!("the kubelet is started once more: {e:#}")),
            other => return other,
        }
        stopped = false;
    }
    Ok(())
}

async fn begun(node: &Node<'_>) -> Result<()> {
    start(node).await?;
    verify::is_on(node, &node.plan.from.socket, LIMIT).await
}

async fn until(limit: Duration, holds: impl Fn() -> bool, otherwise: &str) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() > end {
            bail!("{otherwise} ({} s)", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
