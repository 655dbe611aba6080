//! The configuration: taking the node over, the version, the settings, verifying; and, where `state: Absent`, giving the node back.
use super::grant::{self, leave};
use super::target::{Target, order, target};
use super::{
    AGAIN, Answer, Circumstances, Content, LASTING, MAX_CRASHES, MAX_RESTARTS, MAX_TRIES, PATIENCE, POLICIES_AGAIN,
    Plan, Step, View, Wanted, version,
};
use crate::facts::{AdoptPhase, Daemon};
use crate::journal::Attempt;
use berth_crds::{Disruption, Phase, SecretCredential};
use std::cmp::Ordering;

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
        AdoptPhase::Underway => return underway(view),
        AdoptPhase::Left => {
            let why = view.facts.adoption.message.clone().unwrap_or_default();
            return Plan::new(Step::Recover, Phase::RollingBack).saying(why);
        }
        _ if view.wish.hold => {
            return Plan::new(Step::Rest, Phase::Idle)
                .saying("held: it keeps what it has until spec.hold is taken back");
        }
        AdoptPhase::Unknown => {
            let why = view.facts.adoption.message.as_deref().unwrap_or("berth adopt does not answer");
            return Plan::new(Step::Wait, Phase::Preparing).saying(why);
        }
        AdoptPhase::NotAdopted | AdoptPhase::Adopted | AdoptPhase::Returned => {}
    }
    match target(view, desired) {
        Target::Desired(name) => towards(view, name, false),
        Target::Back(name) => towards(view, name, true),
        Target::Nowhere if view.facts.adoption.phase.foreign() => Plan::new(Step::Rest, Phase::Idle),
        Target::Nowhere => give_up_the_node(view, desired),
        Target::Exhausted(name) => Plan::new(Step::Rest, Phase::Quarantined).saying(format!(
            "neither {desired} nor {name} came through; running containers go on, nothing is tried any more"
        )),
    }
}

fn underway(view: &View<'_>) -> Plan {
    let back = view.facts.adoption.message.clone();
    let phase = if back.is_some() { Phase::RollingBack } else { Phase::Applying };
    Plan { step: Step::Wait, phase, message: back }
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
        Plan::new(Step::Rest, Phase::AwaitingGrant).saying(format!("{} needs leave for {disruption:?}", self.revision))
    }

    /// What the node says of the revision, or the step that asks it.
    fn checked(&self) -> Result<Disruption, Plan> {
        let policies = self.view.wish.policy_revision.as_deref();
        let circumstances = Circumstances::of(self.view.facts, policies);
        match self.view.known.checks.get(&(self.revision.to_owned(), circumstances)) {
            Some(Answer::Fits(disruption)) => Ok(*disruption),
            Some(Answer::Refused(why)) => Err(give_up(self.revision, "Refused", why)),
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
        let good = |answer: &Answer| !matches!(answer, Answer::Refused(_));
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
        begun && self.view.facts.adoption.message.is_some()
    }

    /// Begins an operation. One that did not come to its first step is begun again while the leave lasts, but not at once: who was in its way
    /// may be gone then.
    fn operate(&self, step: Step) -> Plan {
        let plan = Plan::new(step, self.phase(Phase::Applying));
        let Some(attempt) = self.attempt.filter(|a| a.adopted) else { return plan };
        let why = self.view.known.trouble.as_deref().unwrap_or("it has not begun yet, and is tried again");
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

    /// On a node that is ours: version and settings, then looking whether it is well.
    fn settle(&self) -> Plan {
        if let Some(plan) = self.worn_out() {
            return plan;
        }
        let Some(daemon) = &self.view.facts.daemon else { return self.silent() };
        if let Some(why) = self.not_started(daemon) {
            return give_up(self.revision, "NotStarted", format!("the daemon does not start with it: {why}"));
        }
        // A newer daemon knows all that an older one knows: it comes before what it is for, and goes after it.
        let newer = version::compare(&self.wanted.version, &daemon.version);
        if newer == Ordering::Greater {
            return self.restart();
        }
        if let Some(plan) = self.credentials(daemon) {
            return plan;
        }
        if daemon.configuration.as_deref() != Some(self.revision) {
            return self.apply();
        }
        if newer == Ordering::Less || !daemon.pending.is_empty() {
            return self.restart();
        }
        match daemon.troubles.first() {
            Some(trouble) => self.unwell(trouble, if daemon.lasting { LASTING } else { PATIENCE }),
            None if self.view.facts.kubelet.is_none() => self.unwell("no kubelet runs", PATIENCE),
            None => self.kubelet(daemon).or_else(|| self.commit()).unwrap_or_else(|| self.there()),
        }
    }

    /// The kubelet's settings come last: what they are for may need the daemon's, and a node that is not well has other troubles. So does its
    /// start for the sake of the daemon's cgroup driver.
    fn kubelet(&self, daemon: &Daemon) -> Option<Plan> {
        let adoption = &self.view.facts.adoption;
        let has = adoption.kubelet.clone().unwrap_or_default();
        if has == self.wanted.kubelet && !self.other_driver(daemon) {
            return None;
        }
        if adoption.kubelet_failed && self.attempt.is_some_and(|a| a.kubelet) && self.operated() {
            let why = adoption.message.as_deref().unwrap_or("the kubelet did not come up with its settings");
            return Some(give_up(self.revision, "KubeletNotWell", why));
        }
        if !self.may(Disruption::KubeletRestart) {
            return Some(self.awaiting(Disruption::KubeletRestart));
        }
        let leave = leave(self.view, self.revision, Disruption::KubeletRestart);
        let step = Step::ConfigureKubelet {
            revision: self.revision.to_owned(),
            grant: leave.map(|leave| (leave.id, leave.expires)),
        };
        Some(Plan::new(step, self.phase(Phase::Applying)))
    }

    /// Whether the kubelet that runs goes by another cgroup driver than the daemon's.
    fn other_driver(&self, daemon: &Daemon) -> bool {
        let known = self.view.journal.kubelet.as_ref().filter(|k| Some(k.pid) == self.view.facts.kubelet);
        known.is_some_and(|k| k.cgroup_driver != daemon.cgroup_driver) && !daemon.cgroup_driver.is_empty()
    }

    /// Before the configuration that names them, and again for each daemon that starts: it has them in memory only.
    fn credentials(&self, daemon: &Daemon) -> Option<Plan> {
        let held = |wanted: &SecretCredential| daemon.credentials.contains(wanted);
        if self.wanted.credentials.iter().all(held) {
            return None;
        }
        let has = daemon.configuration.as_deref() == Some(self.revision) && self.attempt.is_none();
        Some(match self.view.known.lacking.get(self.revision) {
            None => Plan::new(Step::HandOver(self.revision.to_owned()), self.phase(Phase::Preparing)),
            // What was applied with them stays applied.
            Some(why) if has => Plan::new(Step::Rest, Phase::Verifying).saying(why),
            Some(why) => give_up(self.revision, "Refused", why),
        })
    }

    fn there(&self) -> Plan {
        let rest = Plan::new(Step::Rest, Phase::Idle);
        if self.back { rest.saying(format!("it went back to {}", self.revision)) } else { rest }
    }

    fn apply(&self) -> Plan {
        let disruption = match self.checked() {
            Ok(disruption) => disruption,
            Err(plan) => return plan,
        };
        if !self.may(disruption) {
            return self.awaiting(disruption);
        }
        Plan::new(Step::Apply(self.revision.to_owned()), self.phase(Phase::Applying))
    }

    fn restart(&self) -> Plan {
        if let Some(plan) = self.staged() {
            return plan;
        }
        if !self.may(Disruption::DaemonRestart) {
            return self.awaiting(Disruption::DaemonRestart);
        }
        if self.attempt.is_some_and(|a| a.restarts >= MAX_RESTARTS) {
            let still = self.view.facts.daemon.as_ref().map(|d| d.pending.join(", ")).unwrap_or_default();
            return give_up(self.revision, "NotRestarted", format!("restarts of the daemon did not help: {still}"));
        }
        let step = Step::Restart { revision: self.revision.to_owned(), version: self.wanted.version.clone() };
        Plan::new(step, self.phase(Phase::Applying))
    }

    /// A version that is newer than all that are there comes with the next image of the agent, which may be on its way; the operator says how
    /// long a node may take. Any other one is not to be had.
    fn staged(&self) -> Option<Plan> {
        let (wanted, versions) = (&self.wanted.version, &self.view.facts.versions);
        let known = versions.join(", ");
        if versions.is_empty() || versions.contains(wanted) {
            return None;
        }
        if versions.iter().all(|v| version::compare(wanted, v) == Ordering::Greater) {
            let why = format!(
                "version {wanted} is not on this node yet (there are: {known}): the DaemonSet's image brings it"
            );
            return Some(Plan::new(Step::Wait, self.phase(Phase::Preparing)).saying(why));
        }
        let why = format!(
            "version {wanted} is not on this node (there are: {known}), and no newer image of the agent brings it"
        );
        Some(give_up(self.revision, "Refused", why))
    }

    /// What has begun is finished, also when the leave ends meanwhile.
    fn may(&self, disruption: Disruption) -> bool {
        let begun = self.attempt.is_some();
        !grant::needed(disruption) || self.back || begun || leave(self.view, self.revision, disruption).is_some()
    }

    /// A restart of this attempt has brought a daemon that runs with another configuration.
    fn not_started<'d>(&self, daemon: &'d Daemon) -> Option<&'d str> {
        let restarted = self.attempt.is_some_and(|a| a.restarts > 0);
        let (revision, why) = daemon.not_started.as_ref()?;
        (restarted && revision == self.revision && daemon.configuration.as_deref() != Some(self.revision))
            .then_some(why)
    }

    /// Nobody answers. On the way back it may be the version that does not come up, so that the one to go back to is started.
    fn silent(&self) -> Plan {
        if self.back && self.attempt.is_none() {
            return self.restart();
        }
        self.unwell("the daemon does not answer", PATIENCE)
    }

    /// Not well: during an attempt for so many seconds only; else it is told, and not for an agent to mend.
    fn unwell(&self, why: &str, patience: u64) -> Plan {
        match self.attempt {
            Some(attempt) if self.view.now > attempt.acted.saturating_add(patience) => {
                give_up(self.revision, "NotWell", why)
            }
            Some(_) => Plan::new(Step::Wait, self.phase(Phase::Verifying)).saying(why),
            None => Plan::new(Step::Wait, Phase::Verifying).saying(why),
        }
    }

    /// What is tried too often is given up.
    fn worn_out(&self) -> Option<Plan> {
        let attempt = self.attempt?;
        let crashes = self.view.journal.crashes.count.saturating_sub(attempt.crashes);
        if crashes >= MAX_CRASHES {
            return Some(give_up(
                self.revision,
                "DaemonCrashes",
                format!("the daemon ended {crashes} times by itself"),
            ));
        }
        let last = self.view.known.trouble.as_deref().unwrap_or("nothing is known of the last one");
        let tries = format!("{MAX_TRIES} steps did not get there: {last}");
        (attempt.tries > MAX_TRIES).then(|| give_up(self.revision, "TooManyAttempts", tries))
    }
}
