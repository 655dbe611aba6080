//! What each step does to the node, and what undoes it. Both may be called again after they were cut short at any place.
//!
//! Owns: the table of steps. Must not: keep order or records.
mod command;
mod daemon;
mod files;
mod images;
mod kubelet;
mod programs;
mod verify;

pub(super) use files::{found, hashed};
pub(super) use programs::{PROGRAMS, same as same_programs};

use super::deadman;
use super::runtime::Peer;
use super::talk::Talk;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_adopt::{Direction, Plan, Step};

/// What steps work on.
pub(super) struct Node<'a> {
    pub(super) layout: &'a Layout,
    pub(super) plan: &'a Plan,
    pub(super) talk: &'a Talk,
    /// Whether this is the boot that the operation began in: else processes and pods of then are gone.
    pub(super) same_boot: bool,
}

/// Does it.
pub(super) async fn perform(node: &Node<'_>, step: Step) -> Result<()> {
    let plan = node.plan;
    match step {
        Step::Arm => deadman::arm(node).await,
        Step::Stage => programs::stage(&plan.install),
        Step::Daemon => daemon::start(node).await,
        Step::Images => images::bring(node).await,
        Step::Canary => canary(node).await,
        Step::StopKubelet => kubelet::stop(node).await,
        Step::ClearPods => Peer::connect(&plan.from.socket).await?.clear().await,
        Step::Switch => files::switch(node).await,
        Step::StartKubelet => kubelet::start(node).await,
        Step::Verify => verify::verify(node).await,
        Step::Commit => Ok(()),
        Step::StopDaemon => daemon::stop(node).await,
        Step::Unstage => programs::unstage(&plan.install),
    }
}

/// Undoes it.
pub(super) async fn undo(node: &Node<'_>, step: Step) -> Result<()> {
    let plan = node.plan;
    match step {
        Step::Arm | Step::Images | Step::ClearPods | Step::Commit | Step::StopDaemon | Step::Unstage => Ok(()),
        Step::Stage => programs::unstage(&plan.install),
        Step::Daemon => daemon::stop(node).await,
        Step::Canary | Step::Verify => {
            // What does not answer has no sandbox that would be in the way.
            if let Ok(mut peer) = Peer::connect(&plan.to.socket).await {
                peer.remove_canaries()
                    .await
                    .unwrap_or_else(|e| node.talk.say(&format!("a test sandbox may stay: {e:#}")));
            }
            Ok(())
        }
        Step::StopKubelet => kubelet::back(node).await,
        Step::Switch => files::restore(node).await,
        Step::StartKubelet => {
            if !node.same_boot {
                return Ok(());
            }
            kubelet::stop(node).await?;
            clear_other_side(node).await;
            Ok(())
        }
    }
}

/// Pods that the kubelet has made on the runtime that it is taken from again. The node's own runtime comes first: what cannot be removed is
/// told, and stops nothing.
async fn clear_other_side(node: &Node<'_>) {
    let socket = &node.plan.to.socket;
    let mut peer = Peer::connect(socket).await;
    if peer.is_err() && node.plan.direction == Direction::Adopt && daemon::start(node).await.is_ok() {
        peer = Peer::connect(socket).await;
    }
    let cleared = match peer {
        Ok(mut peer) => peer.clear().await,
        Err(e) => Err(e),
    };
    if let Err(e) = cleared {
        node.talk.say(&format!("pods may be left on {}: {e:#}", node.plan.to.name));
    }
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
    berth.canary(&node.plan.id).await.context("Berth cannot run a sandbox")
}
