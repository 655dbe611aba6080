//! One step, carried out. Errors of its functions: what has to be tried again later, as a sentence.
use super::{Agent, step_revision};
use crate::cluster::ClusterSide;
use crate::facts::Facts;
use crate::hold::hold;
use crate::journal::{Begun, Failure, Journal, Refuser};
use crate::node::{NodeSide, Permit, Policies, Trouble};
use crate::plan::{Answer, Circumstances, Content, Step, Wanted};
use berth_crds::{Disruption, FailedRevision, RuntimeNode};

impl<N: NodeSide, C: ClusterSide> Agent<N, C> {
    /// Takes a step. A refusal is an outcome, kept in the journal; an error is something that is tried again.
    pub(super) async fn take(
        &mut self,
        object: &RuntimeNode,
        facts: &Facts,
        step: &Step,
        now: u64,
    ) -> Result<(), String> {
        let done = match step {
            Step::Rest | Step::Wait => return Ok(()),
            Step::Fetch(name) => self.fetch(name).await,
            Step::Check(name) => self.check(object, facts, name, now).await,
            Step::HandOver(name) => self.hand_over(name).await,
            Step::ApplyPolicies(name) => self.apply_policies(object, facts, name, now).await,
            Step::RefusePolicies { revision, message } => self.refuse_policies(object, facts, revision, message, now),
            Step::Apply(name) => {
                self.begin(object, step, Begun::Apply, now)?;
                hold("apply/begun").await;
                let json = self.json(name);
                let done = self.node.apply(name, &json).await;
                hold("apply/done").await;
                self.conclude(object, step, done, now)
            }
            Step::Restart { version, .. } => {
                self.begin(object, step, Begun::Restart, now)?;
                hold("restart/begun").await;
                let done = self.node.restart(version).await;
                hold("restart/done").await;
                self.conclude(object, step, done, now)
            }
            Step::Adopt { revision, grant, expires } => {
                let wanted = self.wanted(object, revision)?;
                let former = self.begin(object, step, Begun::Adopt, now)?;
                let policies = self.policies(object);
                let done = self.node.adopt(revision, &wanted, policies, self.permit(grant, *expires)).await;
                if let Err(Trouble::Unfit(why)) = done {
                    self.journal = former;
                    self.answered(object, facts, revision, Self::unfit(object, why, now));
                    return self.kept();
                }
                self.operated(object, step, former, done, now)
            }
            Step::GiveBack { grant, expires, .. } => {
                let former = self.begin(object, step, Begun::Adopt, now)?;
                let done = self.node.give_back(self.permit(grant, *expires)).await;
                self.operated(object, step, former, done, now)
            }
            Step::ConfigureKubelet { revision, restart, grant } => {
                let wanted = self.wanted(object, revision)?;
                let former = self.begin(object, step, Begun::Kubelet, now)?;
                let permit = grant.as_ref().map(|(grant, expires)| self.permit(grant, *expires));
                let done = self.node.configure_kubelet(&wanted, *restart, permit).await;
                self.operated(object, step, former, done, now)
            }
            Step::Supervise => self.node.supervise().await.map_err(said),
            Step::Recover => self.node.recover().await.map_err(said),
            Step::Release => self.node.release().await.map_err(said),
            Step::Commit(name) => {
                hold("commit").await;
                tracing::info!(revision = name, "a revision is applied and verified");
                self.journal.commit(name, now);
                self.kept()
            }
            Step::GiveUp { reason, message, .. } => self.give_up(object, step, reason, message, now),
        };
        self.metrics.step(word(step), if done.is_ok() { "ok" } else { "later" });
        self.known.trouble = done.as_ref().err().cloned();
        done
    }

    /// Programs of the host know the node's clock alone.
    fn permit<'a>(&self, grant: &'a str, expires: u64) -> Permit<'a> {
        Permit { grant, expires: self.clock.local(expires) }
    }

    fn kept(&self) -> Result<(), String> {
        if self.keep() { Ok(()) } else { Err("the journal cannot be written".to_owned()) }
    }

    /// From the disk, else from the API server. One that cannot be had now is not asked for again in this pass.
    pub(super) async fn fetch(&mut self, name: &str) -> Result<(), String> {
        if let Some(spec) = self.store.revision(name) {
            self.known.contents.insert(name.to_owned(), Content::of(name, &spec));
            return Ok(());
        }
        match self.cluster.revision(name).await {
            Ok(spec) => {
                self.asking.remove(name);
                if let Err(e) = self.store.keep_revision(name, &spec, &self.needed()) {
                    tracing::warn!(error = %e, revision = name, "a revision could not be kept");
                }
                self.known.contents.insert(name.to_owned(), Content::of(name, &spec));
                Ok(())
            }
            Err(e) => {
                self.asking.entry(name.to_owned()).or_default().failed(&e);
                self.known.away.insert(name.to_owned(), e.clone());
                Err(e)
            }
        }
    }

    /// Revisions that the node has, is told to have, or could go back to.
    pub(super) fn needed(&self) -> Vec<String> {
        let journal = &self.journal;
        let known = [journal.current.as_ref().map(|held| &held.revision), journal.previous.as_ref()];
        let told = self.seen.as_ref().map(|object| &object.spec);
        let told = told.map(|spec| [&spec.desired_revision, &spec.fallback_revision, &spec.policy_revision]);
        let told = told.into_iter().flatten().filter_map(Option::as_ref);
        known.into_iter().flatten().chain(told).cloned().collect()
    }

    /// What a configuration asks for on this node. Errors: it was not fetched.
    pub(super) fn wanted(&self, object: &RuntimeNode, name: &str) -> Result<Wanted, String> {
        match self.known.contents.get(name) {
            // Operators that do not say it tell no other nodes of the control plane than those that are asked for.
            Some(Content::Configuration(wanted)) => {
                Ok(Wanted { control_plane: object.spec.control_plane.unwrap_or(true), ..wanted.clone() })
            }
            _ => Err(format!("{name} is not known as a configuration")),
        }
    }

    /// The policies that the node is to enforce, where they were fetched and can be.
    fn policies<'a>(&'a self, object: &'a RuntimeNode) -> Option<Policies<'a>> {
        let revision = object.spec.policy_revision.as_deref()?;
        match self.known.contents.get(revision) {
            Some(Content::Policies(json)) => Some(Policies { revision, json }),
            _ => None,
        }
    }

    async fn check(&mut self, object: &RuntimeNode, facts: &Facts, name: &str, now: u64) -> Result<(), String> {
        let wanted = self.wanted(object, name)?;
        let foreign = facts.adoption.phase.foreign();
        let policies = self.policies(object).filter(|_| foreign);
        let answer = match self.node.check(name, &wanted, foreign, policies).await {
            Ok(disruption) => Answer::Fits(disruption),
            Err(Trouble::Refused(why)) => Answer::Refused(why),
            Err(Trouble::NotAskedFor(why)) => Answer::NotAskedFor(why),
            Err(Trouble::Unfit(why)) => Self::unfit(object, why, now),
            Err(Trouble::Expired(why) | Trouble::Later(why)) => return Err(why),
        };
        self.answered(object, facts, name, answer);
        Ok(())
    }

    /// The configuration is not to blame: it waits for policies that the node can have.
    fn unfit(object: &RuntimeNode, why: String, at: u64) -> Answer {
        let set = object.spec.policy_revision.as_deref();
        tracing::error!(revision = set, why, "policies do not fit the node, which is not taken over without them");
        Answer::Unfit { why, order: Self::order(object), at }
    }

    fn answered(&mut self, object: &RuntimeNode, facts: &Facts, name: &str, answer: Answer) {
        let circumstances = Circumstances::of(facts, object.spec.policy_revision.as_deref());
        if !matches!(answer, Answer::Fits(_)) && self.journal.asked.take().is_some() {
            self.keep();
        }
        self.known.checks.insert((name.to_owned(), circumstances), answer);
    }

    async fn hand_over(&mut self, name: &str) -> Result<(), String> {
        let Some(Content::Configuration(wanted)) = self.known.contents.get(name) else { return Ok(()) };
        let asked = format!("{name}/credentials");
        if let Some(backoff) = self.asking.get(&asked).filter(|backoff| backoff.rest().is_some()) {
            return Err(backoff.why.clone());
        }
        let had = self.cluster.credentials(&wanted.credentials).await;
        match &had {
            Err(Trouble::Later(why)) => self.asking.entry(asked).or_default().failed(why),
            _ => drop(self.asking.remove(&asked)),
        }
        let done = match had {
            Ok(credentials) => self.node.hand_over(credentials).await,
            Err(trouble) => Err(trouble),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Refused(why) | Trouble::NotAskedFor(why) | Trouble::Unfit(why)) => {
                tracing::error!(revision = name, why, "credentials cannot be handed over");
                self.known.lacking.insert(name.to_owned(), why);
                Ok(())
            }
            Err(Trouble::Expired(why) | Trouble::Later(why)) => Err(why),
        }
    }

    fn json(&self, name: &str) -> String {
        self.known.contents.get(name).and_then(Content::json).unwrap_or_default().to_owned()
    }

    async fn apply_policies(
        &mut self,
        object: &RuntimeNode,
        facts: &Facts,
        name: &str,
        now: u64,
    ) -> Result<(), String> {
        hold("policies/begun").await;
        let json = self.json(name);
        match self.node.apply(name, &json).await {
            Ok(()) => {
                hold("policies/done").await;
                tracing::info!(revision = name, "policies are in force");
                (self.journal.refused_policies, self.journal.refused_by) = (None, None);
                self.kept()
            }
            Err(Trouble::Refused(why) | Trouble::NotAskedFor(why) | Trouble::Unfit(why)) => {
                self.refuse_policies(object, facts, name, &why, now)
            }
            Err(Trouble::Expired(why) | Trouble::Later(why)) => {
                // The configuration does not wait for it.
                self.known.postponed.insert(name.to_owned());
                tracing::warn!(revision = name, why, "policies could not be applied yet");
                Ok(())
            }
        }
    }

    fn refuse_policies(
        &mut self,
        object: &RuntimeNode,
        facts: &Facts,
        name: &str,
        message: &str,
        now: u64,
    ) -> Result<(), String> {
        tracing::error!(revision = name, message, "policies are refused; those before stay in force");
        self.journal.refused_policies = Some(failure(object, name, "Refused", message, now));
        self.journal.refused_by = Refuser::of(facts);
        self.kept()
    }

    /// The journal as it was before the step. Errors: it cannot be written, and nothing has begun.
    fn begin(&mut self, object: &RuntimeNode, step: &Step, begun: Begun, now: u64) -> Result<Journal, String> {
        tracing::info!(?step, "begins");
        let former = self.journal.clone();
        let revision = step_revision(step).unwrap_or_default();
        let leave = object.spec.grant.as_ref().filter(|grant| grant.revision == revision);
        self.journal.begin(revision, &Self::order(object), begun, now);
        self.journal.emptied(leave.is_some_and(|grant| grant.disruption == Disruption::Drain));
        if let Err(why) = self.kept() {
            // It has not begun: it is no try, and nothing that goes on without leave.
            self.journal = former;
            return Err(why);
        }
        Ok(former)
    }

    /// What became of an operation of `berth adopt`. One whose leave was over was not begun: the next leave begins it as if it had not been
    /// tried. One that did not come to its first step is tried for as long as its leave lasts, and no step of those that may not be too many.
    fn operated(
        &mut self,
        object: &RuntimeNode,
        step: &Step,
        former: Journal,
        done: Result<(), Trouble>,
        now: u64,
    ) -> Result<(), String> {
        if let Err(Trouble::Expired(why)) = done {
            self.journal = former;
            return self.kept().and(Err(why));
        }
        let counts = matches!(step, Step::ConfigureKubelet { .. });
        if let (Err(Trouble::Later(_)), Some(attempt), false) = (&done, &mut self.journal.attempt, counts) {
            attempt.tries = former.attempt_at(&attempt.revision, &attempt.order).map_or(1, |before| before.tries);
        }
        self.conclude(object, step, done, now)
    }

    fn conclude(
        &mut self,
        object: &RuntimeNode,
        step: &Step,
        done: Result<(), Trouble>,
        now: u64,
    ) -> Result<(), String> {
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Refused(why) | Trouble::Unfit(why)) => self.give_up(object, step, "Refused", &why, now),
            Err(Trouble::NotAskedFor(why)) => self.give_up(object, step, FailedRevision::CONTROL_PLANE, &why, now),
            Err(Trouble::Expired(why) | Trouble::Later(why)) => Err(why),
        }
    }

    fn give_up(
        &mut self,
        object: &RuntimeNode,
        step: &Step,
        reason: &str,
        message: &str,
        now: u64,
    ) -> Result<(), String> {
        let revision = step_revision(step).unwrap_or_default();
        tracing::error!(revision, reason, message, "a revision is given up");
        let desired = object.spec.desired_revision.as_deref();
        let back = desired != Some(revision);
        // The way back from the first revision ever is another attempt than the way there, and has no revision of its own.
        let returning = matches!(step, Step::GiveBack { .. });
        // Another order is another question: what was in the way may be gone by then.
        self.known.checks.retain(|(asked, _), _| asked != revision);
        self.journal.give_up(failure(object, revision, reason, message, now), back);
        if returning {
            self.journal.begin(revision, &Self::order(object), Begun::Adopt, now);
        }
        self.kept()
    }
}

fn failure(object: &RuntimeNode, revision: &str, reason: &str, message: &str, now: u64) -> Failure {
    Failure {
        revision: revision.to_owned(),
        order: object.spec.desired_since.clone().unwrap_or_default(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        at: now,
    }
}

/// A step's name, for the metrics.
fn word(step: &Step) -> &'static str {
    match step {
        Step::Rest => "Rest",
        Step::Wait => "Wait",
        Step::Fetch(_) => "Fetch",
        Step::Check(_) => "Check",
        Step::HandOver(_) => "HandOver",
        Step::ApplyPolicies(_) => "ApplyPolicies",
        Step::RefusePolicies { .. } => "RefusePolicies",
        Step::Apply(_) => "Apply",
        Step::Restart { .. } => "Restart",
        Step::Adopt { .. } => "Adopt",
        Step::GiveBack { .. } => "GiveBack",
        Step::ConfigureKubelet { .. } => "ConfigureKubelet",
        Step::Supervise => "Supervise",
        Step::Recover => "Recover",
        Step::Release => "Release",
        Step::Commit(_) => "Commit",
        Step::GiveUp { .. } => "GiveUp",
    }
}

fn said(trouble: Trouble) -> String {
    match trouble {
        Trouble::Refused(why)
        | Trouble::NotAskedFor(why)
        | Trouble::Unfit(why)
        | Trouble::Expired(why)
        | Trouble::Later(why) => why,
    }
}
