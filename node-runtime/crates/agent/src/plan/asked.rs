//! A node that has asked for leave keeps its place while it cannot say again whether it could have the revision: after a restart of its agent,
//! while its daemon or `berth adopt` does not answer, while its policies change.
//!
//! The operator gives a node that prepares so much time and no more; one that waits for its turn has as long as that takes. Must not: keep
//! asking for what was refused or begun since, or for another order; the journal forgets those.
use super::{Plan, Step, View, order};
use crate::journal::Asked;
use berth_crds::{Phase, RuntimeNodeSpec};

/// The plan as it is told: it still asks, unless the plan knows better.
pub(super) fn kept(view: &View<'_>, plan: Plan) -> Plan {
    let asked = view.wish.desired_revision.as_deref().and_then(|name| view.journal.asked_for(name, &order(view.wish)));
    match asked {
        Some(asked) if does_not_know(view, &plan) => {
            let message = match &plan.message {
                Some(why) => format!("{}; {why}", asked.message),
                None => asked.message.clone(),
            };
            Plan { phase: Phase::AwaitingGrant, message: Some(message), asks: asked.disruption, ..plan }
        }
        _ => plan,
    }
}

/// Whether the plan says nothing of what the node could have.
fn does_not_know(view: &View<'_>, plan: &Plan) -> bool {
    match plan.phase {
        Phase::Preparing => true,
        Phase::Applying => matches!(plan.step, Step::ApplyPolicies(_)),
        // Of a daemon that runs with what is wished for already, its silence is the news.
        Phase::Verifying => {
            let has = view.journal.current.as_ref().map(|held| &held.revision) == view.wish.desired_revision.as_ref();
            view.facts.daemon.is_none() && plan.step == Step::Wait && !has
        }
        _ => false,
    }
}

/// What leave that plan asks for under the order of a wish, if it does.
pub(crate) fn asked(wish: &RuntimeNodeSpec, plan: &Plan) -> Option<Asked> {
    let asks = plan.phase == Phase::AwaitingGrant && plan.step == Step::Rest;
    let (revision, message) = (wish.desired_revision.clone()?, plan.message.clone()?);
    asks.then(|| Asked { revision, order: order(wish), disruption: plan.asks, message })
}
