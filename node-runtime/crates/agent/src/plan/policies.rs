//! Image policies: at once, never paused, never rolled back; a set that the node refuses leaves the former in force.
use super::{Content, POLICIES_AGAIN, Plan, Step, View};
use crate::journal::Refuser;
use berth_crds::Phase;

/// The next step, if policies need one.
pub(super) fn plan(view: &View<'_>) -> Option<Plan> {
    // A daemon that is left on a node of another runtime, for good, enforces nothing any more.
    let desired = view.wish.desired_revision.as_ref().and_then(|name| view.known.contents.get(name));
    let leaves = matches!(desired, Some(Content::Configuration(wanted)) if wanted.absent);
    if leaves && view.facts.adoption.phase.foreign() {
        return None;
    }
    let (wanted, daemon) = (view.wish.policy_revision.as_ref()?, view.facts.daemon.as_ref()?);
    let refused = refused(view, wanted);
    let postponed = view.known.postponed.contains(wanted) || view.known.away.contains_key(wanted);
    if daemon.policies.as_ref() == Some(wanted) || refused || postponed {
        return None;
    }
    let refuse = |message: &str| Step::RefusePolicies { revision: wanted.clone(), message: message.to_owned() };
    let step = match view.known.contents.get(wanted) {
        None => Step::Fetch(wanted.clone()),
        Some(Content::Policies(_)) => Step::ApplyPolicies(wanted.clone()),
        Some(Content::Configuration(_)) => refuse("is a configuration, not a set of policies"),
        Some(Content::Unsupported(why) | Content::Broken(why)) => refuse(why),
    };
    let phase = if matches!(step, Step::ApplyPolicies(_)) { Phase::Applying } else { Phase::Preparing };
    Some(Plan::new(step, phase))
}

/// Whether the set was refused by this daemon as it is now, and not long ago: another version may know it, and what it lacked may be there.
fn refused(view: &View<'_>, wanted: &str) -> bool {
    let Some(failure) = view.journal.refused_policies.as_ref().filter(|f| f.revision == wanted) else { return false };
    let lately = (failure.at..failure.at.saturating_add(POLICIES_AGAIN)).contains(&view.now);
    lately && view.journal.refused_by == Refuser::of(view.facts)
}
