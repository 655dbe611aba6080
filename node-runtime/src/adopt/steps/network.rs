//! The CNI configuration that a document has Berth's daemon write (`spec.network.cni.confList`): the runtime that the kubelet is on never
//! sees it, unless that is Berth, since it would give pods Berth's network. As a part of the steps `daemon`, `switch`, `commit` and
//! `stop-daemon`, and of their undos.
//!
//! Owns: when it is there. How, is the network's (`berth_network::beside`). Must not: touch one that stood there before the adoption.
use super::Node;
use anyhow::Result;
use berth_adopt::Direction;
use berth_network::beside;
use std::path::PathBuf;

/// Whether it is this operation's business.
fn concerns(node: &Node<'_>) -> bool {
    !node.plan.install.network_before && node.plan.direction != Direction::Configure
}

/// The daemon writes none where the other runtime looks, from here on.
pub(super) fn hold_back(node: &Node<'_>) -> Result<()> {
    if !concerns(node) {
        return Ok(());
    }
    left(node, beside::hold_back(&node.layout.cni())?);
    Ok(())
}

/// The node is about to be on the other runtime.
pub(super) fn switch(node: &Node<'_>) -> Result<()> {
    match node.plan.direction {
        Direction::Adopt if concerns(node) => Ok(beside::let_write(&node.layout.cni())?),
        _ => hold_back(node),
    }
}

/// The node is where it was before.
pub(super) fn switch_back(node: &Node<'_>) -> Result<()> {
    match node.plan.direction {
        Direction::Return if concerns(node) => {
            beside::let_write(&node.layout.cni())?;
            Ok(beside::settle(&node.layout.cni())?)
        }
        _ => hold_back(node),
    }
}

/// Nothing has to come back.
pub(super) fn commit(node: &Node<'_>) -> Result<()> {
    if concerns(node) { Ok(beside::settle(&node.layout.cni())?) } else { Ok(()) }
}

/// The daemon has ended, and its node is another runtime's. One that goes on beside that writes none still.
pub(super) fn withdraw(node: &Node<'_>) -> Result<()> {
    if concerns(node) && !node.plan.install.daemon_before {
        left(node, beside::withdraw(&node.layout.cni())?);
    }
    Ok(())
}

fn left(node: &Node<'_>, file: Option<PathBuf>) {
    if let Some(file) = file {
        node.talk.say(&format!("{} was changed by somebody else; it is left as it is", file.display()));
    }
}
