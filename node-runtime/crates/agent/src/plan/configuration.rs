//! The configuration: where its way goes, what the node says of it, taking the node over and, where `state: Absent`, giving it back. What is done
//! on a node that is ours is in `settle`.
mod settle;

use super::grant::leave;
use super::target::{Target, order, target};
use super::{AGAIN, Answer, Circumstances, Content, MAX_OPERATIONS, POLICIES_AGAIN, Plan, Step, View, Wanted};
use crate::facts::AdoptPhase;
use crate::journal::Attempt;
use berth_crds::{Disruption, FailedRevision, Phase};

/// One way to one revision.
struct Way<'a> {
    view: &'a View<'a>,
    revision: &'a str,
    wanted: &'a Wanted,
    /// Back to what was good: it was begun under the leave for what failed, and needs none of its own.
    back: bool,
    attempt: Option<&'a Attempt>,
}

/// The next step.
pub(super) fn plan(view: &View<'_>) -> Plan {
    let Some(desired) = view.wish.desired_revision.as_deref() else { return Plan::new(Step::Rest, Phase::Idle) };
    match view.facts.adoption.phase {
        AdoptPhase::Underway | AdoptPhase::Left if deaf(view) => {}
        AdoptPhase::Underway => return underway(view),
        AdoptPhase::Left => {
            let why = view.facts.adoption.message.clone().unwrap_or_default();
            return Plan::new(Step::Recover, Phase::RollingBack).saying(why);
        }
        // Whatever else there is to do needs a daemon that somebody starts again.
        AdoptPhase::Adopted if view.facts.unsupervised => {
            return Plan::new(Step::Supervise, Phase::Verifying).saying("the daemon's supervisor was killed");
        }
        _ if view.wish.hold && !begun(view, desired) => {
            return Plan::new(Step::Rest, Phase::Idle)
                .saying("held: it keeps what it has until spec.hold is taken back");
        }
        AdoptPhase::Unknown => {
            let why = view.facts.adoption.message.as_deref().unwrap_or("berth adopt does not answer");
            return Plan::new(Step::Wait, Phase::Preparing).saying(why);
        }
        _ => {}
    }
    match target(view, desired) {
        Target::Desired(name) => forward(view, name),
        Target::Back(name) => towards(view, name, true),
        Target::Nowhere if view.facts.adoption.phase.foreign() => Plan::new(Step::Rest, Phase::Idle),
        Target::Nowhere => give_up_the_node(view, desired),
        Target::Exhausted(name) => Plan::new(Step::Rest, Phase::Quarantined).saying(format!(
            "neither {desired} nor {name} came through; running containers go on, nothing is tried any more"
        )),
    }
}

/// Whether something has begun for what the node is told, which is finished or undone: nobody who asks to leave a node alone means a half of it.
fn begun(view: &View<'_>, desired: &str) -> bool {
    let tried = view.journal.attempt.as_ref().is_some_and(|a| a.order == order(view.wish));
    tried || half_done(view, desired).is_some() || goes_back(view, desired)
}

/// Whether the node is not back yet from what was given up.
fn goes_back(view: &View<'_>, desired: &str) -> bool {
    let journal = view.journal;
    let failed = journal.failed.as_ref().filter(|_| journal.gave_up(desired, &order(view.wish)));
    let Some(failed) = failed.filter(|_| !view.facts.adoption.phase.foreign()) else { return false };
    // Without anything to go back to the node is given back.
    let Some(held) = &journal.current else { return true };
    let has = view.facts.daemon.as_ref().and_then(|daemon| daemon.configuration.as_ref());
    held.since <= failed.at && has != Some(&held.revision)
}

/// Whether a kubelet does not come up that was started anew for another cgroup driver: it is put back on one that answers it no better, until
/// the daemon has the driver of before again. So that does not wait for it.
fn deaf(view: &View<'_>) -> bool {
    let other = view.facts.daemon.as_ref().is_some_and(|daemon| view.journal.other_driver(daemon));
    view.facts.adoption.kubelet_failed && other
}

/// To the desired revision. A node in the middle of another one's attempt may need to be drained only for what that has begun, which the operator
/// cannot know: it is undone first, under the leave that it was begun under.
fn forward(view: &View<'_>, name: &str) -> Plan {
    let plan = towards(view, name, false);
    match half_done(view, name).filter(|_| plan.asks == Some(Disruption::Drain)) {
        Some(verified) => towards(view, verified, true),
        None => plan,
    }
}

/// The revision that was verified last, where something of another one than `name` was begun since and is in force.
fn half_done<'a>(view: &View<'a>, name: &str) -> Option<&'a str> {
    let attempt = view.journal.attempt.as_ref().filter(|a| a.revision != name)?;
    let applied = view.facts.daemon.as_ref()?.configuration.as_ref()?;
    (*applied == attempt.revision).then(|| view.journal.current.as_ref().map(|held| held.revision.as_str()))?
}

fn underway(view: &View<'_>) -> Plan {
    let back = view.facts.adoption.message.clone();
    let phase = if back.is_some() { Phase::RollingBack } else { Phase::Applying };
    Plan { message: back, ..Plan::new(Step::Wait, phase) }
}

/// The first revision ever failed on a node that was taken over for it: the other runtime gets it back while the leave for the way there lasts.
fn give_up_the_node(view: &View<'_>, desired: &str) -> Plan {
    // Asked for once: what could not be given back is for people to look at.
    let tried = view.journal.attempt_at(desired, &order(view.wish)).is_some_and(|a| a.adopted);
    match leave(view, desired, Disruption::Drain) {
        Some(leave) if !tried => {
            let step = Step::GiveBack { revision: desired.to_owned(), grant: leave.id, expires: leave.expires };
            Plan::new(step, Phase::RollingBack).saying("the other runtime gets the node back")
        }
        _ => Plan::new(Step::Rest, Phase::Quarantined)
            .saying("there is no revision to go back to; running containers go on, nothing is tried any more"),
    }
}

fn towards(view: &View<'_>, revision: &str, back: bool) -> Plan {
    let preparing = |step| Plan::new(step, Phase::Preparing);
    let wanted = match view.known.contents.get(revision) {
        Some(Content::Configuration(wanted)) => wanted,
        Some(Content::Unsupported(why)) => return Plan::new(Step::Rest, Phase::Unsupported).saying(why),
        Some(Content::Broken(why)) => return give_up(revision, "BrokenRevision", why),
        Some(Content::Policies(_)) => return give_up(revision, "BrokenRevision", "is a set of policies"),
        None => {
            return match view.known.away.get(revision) {
                Some(why) => preparing(Step::Wait).saying(why),
                None => preparing(Step::Fetch(revision.to_owned())),
            };
        }
    };
    let attempt = view.journal.attempt_at(revision, &order(view.wish));
    let way = Way { view, revision, wanted, back, attempt };
    let foreign = view.facts.adoption.phase.foreign();
    match (wanted.absent, foreign) {
        (true, true) => way.commit().unwrap_or_else(|| {
            let step = if view.facts.applied { Step::Release } else { Step::Rest };
            Plan::new(step, Phase::Idle)
        }),
        (true, false) if view.facts.adoption.native => give_up(
            revision,
            "NotReturned",
            "this node was on Berth from the beginning: there is no runtime to give it back to",
        ),
        (true, false) => way.give_back(),
        (false, true) => way.take_over(),
        (false, false) => way.settle(),
    }
}

fn give_up(revision: &str, reason: &'static str, message: impl Into<String>) -> Plan {
    let step = Step::GiveUp { revision: revision.to_owned(), reason, message: message.into() };
    Plan::new(step, Phase::RollingBack)
}

/// Of a set that there is, and that the node cannot have.
fn unfit(policies: &str, why: &str) -> Plan {
    let why = format!("the node is not taken over without its image policies {policies}: {why}");
    Plan::new(Step::Rest, Phase::AwaitingPolicies).saying(why)
}

impl Way<'_> {
    fn phase(&self, phase: Phase) -> Phase {
        if self.back { Phase::RollingBack } else { phase }
    }

    /// Remembers that it is there, if it does not yet.
    fn commit(&self) -> Option<Plan> {
        let is = self.view.journal.current.as_ref().is_some_and(|held| held.revision == self.revision);
        (!is || self.attempt.is_some())
            .then(|| Plan::new(Step::Commit(self.revision.to_owned()), self.phase(Phase::Verifying)))
    }

    fn awaiting(&self, disruption: Disruption) -> Plan {
        let asks = Plan { asks: Some(disruption), ..Plan::new(Step::Rest, Phase::AwaitingGrant) };
        asks.saying(format!("{} needs leave for {disruption:?}", self.revision))
    }

    /// What the node says of the revision, or the step that asks it.
    fn checked(&self) -> Result<Disruption, Plan> {
        let policies = self.view.wish.policy_revision.as_deref();
        let circumstances = Circumstances::of(self.view.facts, policies);
        match self.view.known.checks.get(&(self.revision.to_owned(), circumstances)) {
            Some(Answer::Fits(disruption)) => Ok(*disruption),
            Some(Answer::Refused(why)) => Err(give_up(self.revision, "Refused", why)),
            Some(Answer::NotAskedFor(why)) => Err(give_up(self.revision, FailedRevision::CONTROL_PLANE, why)),
            Some(Answer::Unfit { why, order, at }) if self.stands(order, *at) => {
                Err(unfit(policies.unwrap_or_default(), why))
            }
            Some(Answer::Unfit { .. }) | None => {
                let about_policies = self.only_policies_are_asked_about();
                let phase = if about_policies { Phase::AwaitingPolicies } else { self.phase(Phase::Preparing) };
                Err(Plan::new(Step::Check(self.revision.to_owned()), phase))
            }
        }
    }

    /// Whether what was said of policies for that order, at that time, still counts.
    fn stands(&self, order: &str, at: u64) -> bool {
        let lately = (at..at.saturating_add(POLICIES_AGAIN)).contains(&self.view.now);
        lately && order == self::order(self.view.wish)
    }

    /// Whether the node, which is another runtime's, has said nothing against the revision itself: what is asked now is about its policies.
    fn only_policies_are_asked_about(&self) -> bool {
        let of_it = |(asked, with): &(String, Circumstances)| {
            asked == self.revision && matches!(with, Circumstances::Foreign(_))
        };
        let good = |answer: &Answer| !matches!(answer, Answer::Refused(_) | Answer::NotAskedFor(_));
        let foreign = self.view.facts.adoption.phase.foreign();
        foreign && self.view.known.checks.iter().any(|(key, answer)| of_it(key) && good(answer))
    }

    fn take_over(&self) -> Plan {
        if self.walked_back() {
            let why = self.view.facts.adoption.message.as_deref().unwrap_or("the node could not be taken over");
            return give_up(self.revision, "NotAdopted", why);
        }
        if let Some(plan) = self.without_policies() {
            return plan;
        }
        if let Err(plan) = self.checked() {
            return plan;
        }
        let Some(leave) = leave(self.view, self.revision, Disruption::Drain) else {
            return self.awaiting(Disruption::Drain);
        };
        self.operate(Step::Adopt { revision: self.revision.to_owned(), grant: leave.id, expires: leave.expires })
    }

    /// A node is not opened without the policies that it is to enforce. The revision is not to blame for them, and the phase says so: the operator
    /// gives no leave meanwhile, and counts no failure.
    fn without_policies(&self) -> Option<Plan> {
        let name = self.view.wish.policy_revision.as_ref()?;
        let why = match (self.view.known.contents.get(name), self.view.known.away.get(name)) {
            (Some(Content::Policies(_)), _) => return None,
            (Some(Content::Unsupported(why) | Content::Broken(why)), _) => why.as_str(),
            (Some(Content::Configuration(_)), _) => "is a configuration, not a set of policies",
            (None, Some(why)) => {
                let why = format!("its image policies {name} cannot be had: {why}");
                return Some(Plan::new(Step::Wait, Phase::AwaitingPolicies).saying(why));
            }
            (None, None) => return Some(Plan::new(Step::Fetch(name.clone()), Phase::AwaitingPolicies)),
        };
        Some(unfit(name, why))
    }

    /// Whether the node's last operation is one of this attempt. What is said of an older one was said of another attempt.
    fn operated(&self) -> bool {
        let last = self.view.facts.adoption.operation.as_ref();
        last.is_some() && self.attempt.is_some_and(|a| a.operation.as_ref() != last)
    }

    /// An operation of this attempt is over, and the node is where it was.
    fn walked_back(&self) -> bool {
        let begun = self.attempt.is_some_and(|a| a.adopted) && self.operated();
        begun && self.view.facts.adoption.message.is_some() && !self.once_more()
    }

    /// The last operation of this attempt was ended from outside, and there were few of them: the revision is not to blame yet.
    fn once_more(&self) -> bool {
        self.view.facts.adoption.interrupted && self.attempt.is_some_and(|a| a.tries < MAX_OPERATIONS)
    }

    /// Begins an operation. One that did not come to its first step is begun again while the leave lasts, but not at once: who was in its way
    /// may be gone then.
    fn operate(&self, step: Step) -> Plan {
        let plan = Plan::new(step, self.phase(Phase::Applying));
        let Some(attempt) = self.attempt.filter(|a| a.adopted) else { return plan };
        let said = self.view.known.trouble.as_deref().unwrap_or("it has not begun yet, and is tried again");
        let ended = self.view.facts.adoption.message.as_deref().filter(|_| self.operated());
        let why = ended.map_or_else(|| said.to_owned(), |why| format!("it is tried again: {why}"));
        let soon = (attempt.acted..attempt.acted.saturating_add(AGAIN)).contains(&self.view.now);
        if soon { Plan { step: Step::Wait, ..plan }.saying(why) } else { plan.saying(why) }
    }

    fn give_back(&self) -> Plan {
        if self.walked_back() {
            let why = self.view.facts.adoption.message.as_deref().unwrap_or("the node could not be given back");
            return give_up(self.revision, "NotReturned", why);
        }
        let Some(leave) = leave(self.view, self.revision, Disruption::Drain) else {
            return self.awaiting(Disruption::Drain);
        };
        self.operate(Step::GiveBack { revision: self.revision.to_owned(), grant: leave.id, expires: leave.expires })
    }
}
