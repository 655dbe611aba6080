//! Where the way goes: to the desired revision or, once that was given up, back.
use super::View;
use berth_crds::{FailedRevision, RuntimeNodeSpec};

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// What the operator told the node to have.
    Desired(&'a str),
    /// What it had, or what the operator named for this case.
    Back(&'a str),
    /// The desired one was the first one ever, and was given up, or nobody asked for the node: there is nothing to go back to but the other
    /// runtime.
    Nowhere,
    /// What it went back to was given up too.
    Exhausted(&'a str),
}

/// How the node was told: the same revision told again is to be tried again.
pub fn order(wish: &RuntimeNodeSpec) -> String {
    wish.desired_since.clone().unwrap_or_default()
}

/// The way of a node that is told to have that revision.
pub(super) fn target<'a>(view: &View<'a>, desired: &'a str) -> Target<'a> {
    let (journal, order) = (view.journal, order(view.wish));
    if !journal.gave_up(desired, &order) {
        return Target::Desired(desired);
    }
    // A node that nobody asked for is taken over with no other revision either.
    let not_asked_for = journal.failed.as_ref().is_some_and(|failed| failed.reason == FailedRevision::CONTROL_PLANE);
    if not_asked_for && view.facts.adoption.phase.foreign() {
        return Target::Nowhere;
    }
    let had = [journal.current.as_ref().map(|held| held.revision.as_str()), journal.previous.as_deref()];
    let had = had.into_iter().flatten().find(|name| *name != desired);
    let Some(back) = had.or(view.wish.fallback_revision.as_deref()).filter(|name| *name != desired) else {
        return Target::Nowhere;
    };
    let failed = journal.failed_back.as_ref().is_some_and(|f| f.revision == back && f.order == order);
    if failed { Target::Exhausted(back) } else { Target::Back(back) }
}
