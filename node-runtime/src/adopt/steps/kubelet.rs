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
    end(node, &runs).await
}

async fn end(node: &Node<'_>, runs: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    if node.plan.profile == Profile::Command && !runs() {
        return Ok(());
    }
    run(node.layout, &node.plan.commands.stop, COMMAND_LIMIT).await?;
    until(LIMIT, || !runs(), "the kubelet still runs after it was stopped").await
}

/// Starts it. One that runs is fine; its unit is started all the same, which takes back a stop that systemd has not done yet.
pub(super) async fn start(node: &Node<'_>) -> Result<()> {
    begin(node, &runs).await
}

async fn begin(node: &Node<'_>, runs: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    if node.plan.profile == Profile::Command {
        if runs() {
            return Ok(());
        }
    } else {
        systemctl(node.layout, &["daemon-reload"]).await?;
        // One that died too often is not started otherwise.
        let _ = systemctl(node.layout, &["reset-failed", unit(node)]).await;
    }
    run(node.layout, &node.plan.commands.start, COMMAND_LIMIT).await?;
    let limit = if node.plan.direction == Direction::Configure { CONFIGURED_LIMIT } else { LIMIT };
    // One that does not take its settings may have ended before it was looked for.
    until(limit, runs, "the kubelet ended at once, or did not begin; its log says why").await
}

/// With the node's start, which may have started it too early, with files that have come back since: that one is followed by another.
async fn begin_with_the_node(node: &Node<'_>, runs: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    if runs() {
        end(node, runs).await?;
    }
    if node.plan.profile == Profile::Command {
        return begin(node, runs).await;
    }
    // It waits for whoever calls this.
    systemctl(node.layout, &["start", "--no-block", unit(node)]).await
}

/// Whether a kubelet runs on this node.
pub(super) fn runs() -> bool {
    !kubelets::of_this_node().is_empty()
}

fn unit<'a>(node: &'a Node<'_>) -> &'a str {
    node.plan.commands.start.last().map(String::as_str).unwrap_or_default()
}

/// The kubelet runs again as it did, and proves it. `stopped`: whether it is known to have ended before; else the command that was to
/// stop it may have been cut off, and what it has begun may still end the kubelet.
pub(super) async fn back(node: &Node<'_>, stopped: bool) -> Result<()> {
    if node.at_start {
        return begin_with_the_node(node, &runs).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adopt::talk::Talk;
    use crate::layout::Layout;
    use berth_adopt::Plan;
    use serde_json::json;

    /// Nothing but its unit's `Before=` has a kubelet wait for Berth, and a unit of another name may have none.
    #[tokio::test]
    async fn a_kubelet_that_was_started_before_its_files_were_back_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        std::fs::create_dir_all(crate::adopt::record::directory(&layout)).unwrap();
        let (kubelet, log) = (dir.path().join("kubelet"), dir.path().join("log"));
        let shell = |text: String| json!(["/bin/sh", "-c", text]);
        let commands = json!({
            "stop": shell(format!("rm {0} && echo stop >> {1}", kubelet.display(), log.display())),
            "start": shell(format!("touch {0} && echo start >> {1}", kubelet.display(), log.display())),
        });
        let runtime = json!({"socket": "/run/x.sock", "name": "x", "version": "1", "cgroupDriver": null});
        let plan: Plan = serde_json::from_value(json!({
            "id": "op", "direction": "return", "profile": "command", "bootId": "b", "deadline": 0, "permission": "person",
            "from": runtime, "to": runtime, "commands": commands, "healthz": null,
            "files": [], "images": [], "pods": [], "steps": [], "notes": [],
            "install": {"prefix": "/x", "from": "/x", "version": "1", "currentBefore": null, "stagedBefore": true,
                "prefixBefore": true, "daemonBefore": false, "systemd": false, "unitBefore": false},
        }))
        .unwrap();
        let node = Node { layout: &layout, plan: &plan, talk: &Talk { quiet: true }, at_start: true };
        let runs = || kubelet.exists();
        begin_with_the_node(&node, &runs).await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "start\n", "none ran");
        begin_with_the_node(&node, &runs).await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "start\nstop\nstart\n");
    }
}
