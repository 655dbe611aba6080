//! What keeps nodes as they are: objects that cannot be accepted or understood. Pure.
use super::super::status::not_understood_because;
use super::build::Rendered;
use crate::cluster::{Broken, World};
use berth_crds::RuntimeNode;
use std::collections::BTreeSet;

/// An object that freezes a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What is wrong with it: a word, and a sentence.
    pub problem: String,
}

impl Cause {
    pub(super) fn of(kind: &'static str, name: &str, problem: &str) -> Self {
        Self { kind, name: name.to_owned(), problem: problem.to_owned() }
    }

    /// One that this version cannot parse.
    pub(super) fn unknown(kind: &'static str, broken: &Broken) -> Self {
        Self::of(kind, &broken.name, &format!("NotUnderstood: {}", not_understood_because(broken)))
    }
}

/// The revisions that a node has, or is told to have or to go back to, and that this version cannot parse: neither what a way from or to them
/// takes nor what became of them is known.
pub(super) fn by_revisions(world: &World, node: &RuntimeNode) -> Vec<Cause> {
    let current = node.status.as_ref().and_then(|s| s.current_revision.as_ref());
    let names = [node.spec.desired_revision.as_ref(), node.spec.fallback_revision.as_ref(), current];
    let broken = names.into_iter().flatten().filter_map(|name| world.broken_revisions.get(name));
    broken.map(|broken| Cause::unknown("RuntimeRevision", broken)).collect()
}

/// The nodes of a RuntimeConfig that keep what they have because of another object: how many, and the first one with that one's problem.
pub(super) fn told(rendered: &Rendered, name: &str) -> Option<String> {
    let selected = rendered.selected.get(name)?;
    let other =
        |by: &BTreeSet<Cause>| by.iter().find(|cause| cause.kind != "RuntimeConfig" || cause.name != name).cloned();
    let nodes = rendered.frozen_by.iter().filter(|(node, _)| selected.contains(*node));
    let mut caused = nodes.filter_map(|(node, by)| Some((node, other(by)?)));
    let (node, Cause { kind, name, problem }) = caused.next()?;
    let count = 1 + caused.count();
    Some(format!("{count} nodes keep what they have: node {node}, because of {kind} {name}: {problem}"))
}
