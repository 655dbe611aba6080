//! On a node that is ours: the daemon's version, the settings, the kubelet, and whether all is well.
use super::super::grant::{self, leave};
use super::super::{AGAIN, LASTING, MAX_CRASHES, MAX_RESTARTS, MAX_TRIES, PATIENCE, Plan, Step};
use super::{Way, give_up};
use crate::facts::Daemon;
use berth_crds::{Disruption, Phase, SecretCredential, compare_versions};
use std::cmp::Ordering;

impl Way<'_> {
    /// On a node that is ours: version and settings, then looking whether it is well.
    pub(super) fn settle(&self) -> Plan {
        if let Some(plan) = self.worn_out() {
            return plan;
        }
        if let Some(why) = self.kubelet_failed() {
            return give_up(self.revision, "KubeletNotWell", why);
        }
        let Some(daemon) = &self.view.facts.daemon else { return self.silent() };
        if let Some(why) = self.not_started(daemon) {
            return give_up(self.revision, "NotStarted", format!("the daemon does not start with it: {why}"));
        }
        // A newer daemon knows all that an older one knows: it comes before what it is for, and goes after it.
        let newer = compare_versions(&self.wanted.version, &daemon.version);
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
        let restart = self.other_driver(daemon);
        if has == self.wanted.kubelet && !restart {
            return None;
        }
        let needs = if restart && !self.may_empty() { Disruption::Drain } else { Disruption::KubeletRestart };
        let leave = leave(self.view, self.revision, needs);
        let may = if needs == Disruption::Drain { leave.is_some() } else { self.may(needs) || restart };
        if !may {
            return Some(self.awaiting(needs));
        }
        let step = Step::ConfigureKubelet {
            revision: self.revision.to_owned(),
            restart,
            grant: leave.map(|leave| (leave.id, leave.expires)),
        };
        Some(self.act(step))
    }

    /// Whether the pods that are left may be made anew: the operator has emptied the node for it, or the node goes back to what it was verified
    /// with, and no pod starts on it before that.
    fn may_empty(&self) -> bool {
        let verified = self.view.journal.current.as_ref().is_some_and(|held| held.revision == self.revision);
        self.back || verified || self.attempt.is_some_and(|a| a.emptied)
    }

    /// Why the kubelet did not come up for this attempt.
    fn kubelet_failed(&self) -> Option<&str> {
        let adoption = &self.view.facts.adoption;
        let ended = adoption.kubelet_failed && self.attempt.is_some_and(|a| a.kubelet) && self.operated();
        // One that was ended from outside is begun again, as often as an attempt may have steps.
        let failed = ended && !adoption.interrupted;
        failed.then(|| adoption.message.as_deref().unwrap_or("the kubelet did not come up with its settings"))
    }

    /// Whether the kubelet that runs goes by another cgroup driver than the daemon's.
    fn other_driver(&self, daemon: &Daemon) -> bool {
        let seen = self.view.journal.kubelet.as_ref().is_some_and(|k| Some(k.pid) == self.view.facts.kubelet);
        seen && self.view.journal.other_driver(daemon)
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
        self.act(Step::Apply(self.revision.to_owned()))
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
        self.act(Step::Restart { revision: self.revision.to_owned(), version: self.wanted.version.clone() })
    }

    /// Begins a step. Where the last one did not come off, not at once: who was in its way may be gone then, and tries are counted.
    fn act(&self, step: Step) -> Plan {
        let plan = Plan::new(step, self.phase(Phase::Applying));
        let lately = |acted: u64| (acted..acted.saturating_add(AGAIN)).contains(&self.view.now);
        match self.view.known.trouble.as_deref().filter(|_| self.attempt.is_some_and(|a| lately(a.acted))) {
            Some(why) => Plan { step: Step::Wait, ..plan }.saying(why),
            None => plan,
        }
    }

    /// A version that is newer than all that are there comes with the next image of the agent, which may be on its way; the operator says how
    /// long a node may take. Any other one is not to be had.
    fn staged(&self) -> Option<Plan> {
        let (wanted, versions) = (&self.wanted.version, &self.view.facts.versions);
        let known = versions.join(", ");
        if versions.is_empty() || versions.contains(wanted) {
            return None;
        }
        if versions.iter().all(|v| compare_versions(wanted, v) == Ordering::Greater) {
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

    /// Not well: during an attempt for so many seconds only, of both the step and the trouble; else it is told, and not for an agent to mend.
    fn unwell(&self, why: &str, patience: u64) -> Plan {
        let long = self.view.known.unwell > patience;
        match self.attempt {
            Some(attempt) if long && self.view.now > attempt.acted.saturating_add(patience) => {
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
