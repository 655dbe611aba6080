//! What each step does to the node, and what undoes it. Both may be called again after they were cut short at any place.
//!
//! Owns: the table of steps. Must not: keep order or records.
mod command;
mod daemon;
mod files;
mod groups;
mod images;
mod kubelet;
mod network;
mod programs;
mod revision;
mod verify;

pub(super) use daemon::do_not_start;
pub(super) use files::{found, hashed};
pub(super) use programs::{PROGRAMS, same as same_programs};

use super::runtime::Peer;
use super::talk::Talk;
use super::{deadman, now_seconds, wreck};
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_adopt::{Direction, Plan, Step};
use std::time::Duration;

/// How long test sandboxes may take to be gone in an undo.
const CANARY_LIMIT: Duration = Duration::from_secs(120);
/// The same of the pods on the other runtime: two rounds of containers with their shortest grace (`MIN_GRACE` in `runtime.rs`), and as much again.
/// With the end of a kubelet before it, it is shorter than the undo of a step may take (`UNDO_LIMIT` in `walk.rs`).
const CLEAR_LIMIT: Duration = Duration::from_secs(240);

/// What steps work on.
pub(super) struct Node<'a> {
    pub(super) layout: &'a Layout,
    pub(super) plan: &'a Plan,
    pub(super) talk: &'a Talk,
    /// Whether the node, or the daemon, is just being started, and waits for this.
    pub(super) at_start: bool,
}

/// Room in bytes that the way back may need beside that for its records.
pub(super) fn room(plan: &Plan) -> u64 {
    let texts = plan.files.iter().filter_map(|change| change.before.as_ref()).map(|state| state.text.len() as u64);
    // A block more for each, and for what has to be kept aside.
    texts.map(|length| 2 * length.next_multiple_of(4096)).sum::<u64>() + revision::room(plan)
}

/// Gives back what an operation has taken on the disk and does not need on the way back.
pub(super) fn make_room(layout: &Layout) {
    images::forget(layout);
}

/// Does it.
pub(super) async fn perform(node: &Node<'_>, step: Step) -> Result<()> {
    let plan = node.plan;
    match step {
        Step::Arm => deadman::arm(node).await,
        Step::Stage => programs::stage(&plan.install),
        Step::Daemon => {
            network::hold_back(node)?;
            revision::hand_over(node).await?;
            revision::in_force(node, daemon::start(node).await).await
        }
        Step::Images => images::bring(node).await,
        Step::Canary => canary(node).await,
        Step::StopKubelet => kubelet::stop(node).await,
        Step::ClearPods if plan.without_daemon => wreck::end_pods(node.layout).await,
        Step::ClearPods => {
            Peer::connect(&plan.from.socket).await?.clear(plan.deadline.saturating_sub(now_seconds())).await
        }
        Step::Switch => {
            files::switch(node).await?;
            network::switch(node)
        }
        Step::StartKubelet => kubelet::start(node).await,
        Step::Verify => verify::verify(node).await,
        Step::Commit => {
            files::commit(&plan.files);
            network::commit(node);
            groups::leave_former(node).await;
            Ok(())
        }
        Step::StopDaemon => {
            daemon::stop(node).await?;
            network::withdraw(node);
            Ok(())
        }
        Step::Unstage => programs::unstage(&plan.install),
    }
}

/// Undoes it. `done`: whether it was done, and not only begun.
pub(super) async fn undo(node: &Node<'_>, step: Step, done: bool) -> Result<()> {
    let plan = node.plan;
    match step {
        Step::Images => {
            images::forget(node.layout);
            Ok(())
        }
        Step::Arm | Step::ClearPods | Step::Commit | Step::StopDaemon | Step::Unstage => Ok(()),
        Step::Stage => programs::unstage(&plan.install),
        Step::Daemon => {
            daemon::stop(node).await?;
            network::withdraw(node);
            revision::take_back(node).await
        }
        Step::Canary | Step::Verify => {
            within(CANARY_LIMIT, remove_canaries(node))
                .await
                .unwrap_or_else(|e| node.talk.say(&format!("a test sandbox may stay: {e:#}")));
            Ok(())
        }
        Step::StopKubelet => kubelet::back(node, done).await,
        Step::Switch => {
            files::restore(node).await?;
            network::switch_back(node);
            Ok(())
        }
        Step::StartKubelet => {
            if node.at_start && !kubelet::runs() {
                // As it should be: it waits for this, and its pods of before are gone.
                return Ok(());
            }
            kubelet::stop(node).await?;
            if plan.direction != Direction::Configure {
                within(CLEAR_LIMIT, clear_other_side(node))
                    .await
                    .unwrap_or_else(|e| node.talk.say(&format!("pods may be left on {}: {e:#}", plan.to.name)));
            }
            Ok(())
        }
    }
}

/// What a runtime does not end is not waited for until the undo's own limit: the node's own runtime comes first, and what is left on the other
/// one is told, and stops nothing.
async fn within(limit: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    let ended = tokio::time::timeout(limit, work).await;
    ended.unwrap_or_else(|_| bail!("it is not done within {} s", limit.as_secs()))
}

/// What does not answer has no sandbox that would be in the way.
async fn remove_canaries(node: &Node<'_>) -> Result<()> {
    match Peer::connect(&node.plan.to.socket).await {
        Ok(mut peer) => peer.remove_canaries().await,
        Err(_) => Ok(()),
    }
}

/// Pods that the kubelet has made on the runtime that it is taken from again.
async fn clear_other_side(node: &Node<'_>) -> Result<()> {
    let socket = &node.plan.to.socket;
    let mut peer = Peer::connect(socket).await;
    // A daemon that waits for this has no pods of this boot.
    let may_start = node.plan.direction == Direction::Adopt && !node.at_start;
    if peer.is_err() && may_start && daemon::start(node).await.is_ok() {
        peer = Peer::connect(socket).await;
    }
    peer?.clear(0).await
}

/// Before anything of the kubelet's is touched: Berth must be what the plan took it for, and run a sandbox.
async fn canary(node: &Node<'_>) -> Result<()> {
    let (from, to) = (&node.plan.from, &node.plan.to);
    let mut berth = Peer::connect(&to.socket).await?;
    let found = berth.who(&to.socket).await?;
    if let (Some(one), Some(other)) = (&found.cgroup_driver, &from.cgroup_driver)
        && one != other
    {
        bail!(
            "Berth's cgroup driver is {one}, that of {} is {other}: set spec.runtime.cgroupManager in a document",
            from.name
        );
    }
    berth.ready().await.context("Berth is not ready; `berth doctor` may know more")?;
    berth.canary(&node.plan.id, to).await.context("Berth cannot run a sandbox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_on_the_other_side_is_told_like_what_fails() {
        let hangs = within(Duration::from_millis(5), std::future::pending()).await.unwrap_err();
        assert!(hangs.to_string().contains("not done within"), "{hangs}");
        let fails = within(CLEAR_LIMIT, async { bail!("no answer") }).await.unwrap_err();
        assert_eq!(fails.to_string(), "no answer");
        within(CANARY_LIMIT, async { Ok(()) }).await.unwrap();
        let whole = kubelet::COMMAND_LIMIT + kubelet::LIMIT + CLEAR_LIMIT;
        assert!(whole < crate::adopt::walk::UNDO_LIMIT, "with the kubelet's end before it");
    }
}
