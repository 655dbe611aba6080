//! The loop: look, plan, report, do; until there is nothing to do. Owns: its order, and what an outcome means for the journal.
//!
//! The journal is on disk before a step that changes the node begins. An API server that is away stops nothing that goes on: the object
//! that was seen last counts, and reports wait. Must not: decide what to do; `plan` does.
mod steps;
#[cfg(test)]
mod tests;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::cluster::{ClusterSide, Seen};
use crate::facts::Facts;
use crate::journal::Journal;
use crate::node::NodeSide;
use crate::observe::Metrics;
use crate::plan::{Known, Plan, Step, View, asked, order, plan};
use crate::report;
use crate::store::Store;
use berth_crds::{RuntimeNode, RuntimeNodeStatus};
use berth_model::Result;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Most steps of one pass; what needs more goes on in the next one.
const MAX_STEPS: usize = 32;
/// Names of which it is remembered how often they could not be had.
const MAX_ASKED: usize = 32;
/// How soon it looks again while something goes on.
const SOON: Duration = Duration::from_secs(2);
/// How often it looks when nothing changes: for drift, crashes, and what was away.
const SELDOM: Duration = Duration::from_secs(15);

/// How long the API server's object may be older than what was written last. What it says otherwise then, somebody else wrote.
const ECHOES: Duration = Duration::from_secs(60);

/// What was written last.
struct Reported {
    /// UID of its object.
    uid: Option<String>,
    status: RuntimeNodeStatus,
    at: Instant,
}

/// An agent of one node.
pub struct Agent<N, C> {
    node: N,
    cluster: C,
    store: Store,
    journal: Journal,
    known: Known,
    /// The status that the API server has.
    reported: Option<Reported>,
    /// Of a report that failed.
    reporting: Backoff,
    /// What could not be had of the API server, by name.
    asking: BTreeMap<String, Backoff>,
    /// Since when each look has found the node unwell, by a clock that nobody sets.
    unwell: Option<Instant>,
    /// The object that lies on the disk.
    seen: Option<RuntimeNode>,
    clock: Clock,
    metrics: Metrics,
}

impl<N: NodeSide, C: ClusterSide> Agent<N, C> {
    /// Over these, with what was kept in the store. `clock` is the one that the answers of `cluster` tell.
    pub fn new(node: N, cluster: C, store: Store, clock: Clock, metrics: Metrics) -> Self {
        let journal = store.journal();
        let (known, reported, reporting, asking) = (Known::default(), None, Backoff::default(), BTreeMap::new());
        let (unwell, seen) = (None, None);
        Self { node, cluster, store, journal, known, reported, reporting, asking, unwell, seen, clock, metrics }
    }

    /// Works until it is told to stop. A step that goes on then is finished first.
    pub async fn run(mut self, mut seen: watch::Receiver<Seen>, mut stop: watch::Receiver<bool>) {
        loop {
            let now = seen.borrow_and_update().clone();
            self.metrics.beats(now != Seen::Nothing);
            let pause = match self.object(now) {
                Some(object) => self.pass(object).await,
                None => SELDOM,
            };
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// The object that counts. Without one the node keeps what it has, but for an attempt that has begun: that is finished, or undone, also
    /// while the API server is away.
    fn object(&mut self, seen: Seen) -> Option<RuntimeNode> {
        match seen {
            Seen::There(object) => {
                self.see(&object);
                Some(*object)
            }
            Seen::Nothing if self.journal.attempt.is_some() => self.store.last_seen(),
            Seen::Nothing => None,
            Seen::Gone => {
                self.reported = None;
                tracing::info!("there is no RuntimeNode: the node keeps what it has");
                None
            }
            Seen::Unreadable(why) => {
                tracing::error!(why, "the RuntimeNode cannot be read by this version: the node keeps what it has");
                None
            }
        }
    }

    /// Keeps what is wished, where it is news.
    fn see(&mut self, object: &RuntimeNode) {
        let same = |seen: &RuntimeNode| seen.spec == object.spec && seen.metadata.uid == object.metadata.uid;
        if self.seen.as_ref().is_some_and(same) {
            return;
        }
        match self.store.see(object) {
            Ok(()) => self.seen = Some(object.clone()),
            Err(e) => tracing::warn!(error = %e, "the RuntimeNode could not be kept"),
        }
    }

    /// Steps until there is nothing to do; when to look again.
    pub async fn pass(&mut self, object: RuntimeNode) -> Duration {
        self.journal = std::mem::take(&mut self.journal).of_node(&object.spec.node_uid);
        // What could not be had may be had now.
        if self.asking.len() > MAX_ASKED {
            self.asking.retain(|_, backoff| backoff.rest().is_some());
        }
        self.known.away.retain(|name, _| self.asking.get(name).is_some_and(|backoff| backoff.rest().is_some()));
        self.known.postponed.clear();
        self.known.lacking.clear();
        let mut pause = SELDOM;
        for _ in 0..MAX_STEPS {
            self.metrics.beats(false);
            let facts = self.node.look().await;
            self.unwell = facts.unwell().then(|| self.unwell.unwrap_or_else(Instant::now));
            self.known.unwell = self.unwell.map_or(0, |since| since.elapsed().as_secs());
            let former = self.journal.clone();
            self.journal.observe(&facts);
            if let Some(now) = self.clock.server() {
                self.journal.not_later(now);
            }
            if self.journal != former && !self.keep() {
                return SOON;
            }
            let (now, certain) = (self.clock.now(), self.clock.server().is_some());
            let view =
                View { wish: &object.spec, journal: &self.journal, facts: &facts, known: &self.known, now, certain };
            let plan = plan(&view);
            tracing::debug!(?plan, "plans");
            self.remember(&object, &plan);
            let quick = quick(&plan.step) || self.asks_again(&plan.step);
            if !quick {
                self.report(&object, &facts, &plan, now).await;
            }
            match &plan.step {
                Step::Rest => return self.reporting.rest().map_or(pause, |rest| pause.min(rest)),
                Step::Wait => return SOON,
                step => match self.take(&object, &facts, step, now).await {
                    Ok(()) => {}
                    Err(later) => {
                        tracing::warn!(step = ?plan.step, why = later, "a step is tried again");
                        if quick {
                            self.report(&object, &facts, &plan.clone().saying_too(&later), now).await;
                        }
                        pause = SOON;
                        if !self.known.away.contains_key(step_revision(step).unwrap_or_default()) {
                            return SOON;
                        }
                    }
                },
            }
        }
        SOON
    }

    /// Remembers that the node asks for leave, where that is news: the next agent may not be able to say it at once.
    fn remember(&mut self, object: &RuntimeNode, plan: &Plan) {
        let desired = object.spec.desired_revision.as_deref().unwrap_or_default();
        // On the way back it asks for something else.
        let back = self.journal.gave_up(desired, &order(&object.spec));
        let asked = asked(&object.spec, plan).filter(|_| !back);
        if asked.is_some() && asked != self.journal.asked {
            self.journal.asked = asked;
            self.keep();
        }
    }

    /// Puts the journal on disk. Without it no step begins.
    fn keep(&self) -> bool {
        let kept: Result<()> = self.store.keep(&self.journal);
        if let Err(e) = &kept {
            tracing::error!(error = %e, "the journal cannot be written: nothing is begun");
        }
        kept.is_ok()
    }

    /// Only what changed is written.
    async fn report(&mut self, object: &RuntimeNode, facts: &Facts, plan: &Plan, now: u64) {
        let mut known = object.clone();
        let mut overwritten = false;
        if let Some(reported) = self.reported.as_ref().filter(|reported| reported.uid == object.metadata.uid) {
            let other = object.status.as_ref() != Some(&reported.status);
            overwritten = other && reported.at.elapsed() >= ECHOES;
            known.status = Some(reported.status.clone());
        }
        let status = report::status(&known, &self.journal, facts, plan, now);
        self.metrics.standing(&status);
        if known.status.as_ref() == Some(&status) && !overwritten {
            return;
        }
        if self.reporting.rest().is_some() {
            return;
        }
        let name = object.metadata.name.clone().unwrap_or_default();
        let done = self.cluster.report(&name, &status).await;
        self.metrics.reported(done.is_ok());
        match done {
            Ok(()) => {
                self.reported = Some(Reported { uid: object.metadata.uid.clone(), status, at: Instant::now() });
                self.reporting = Backoff::default();
            }
            Err(e) => {
                self.reporting.failed(&e);
                tracing::warn!(error = e, "the status could not be written; it is tried again");
            }
        }
    }

    /// Whether the step is one of those by which a set of policies that was refused is tried every now and then: what is told of the node is
    /// the same until it comes off.
    fn asks_again(&self, step: &Step) -> bool {
        let refused = self.journal.refused_policies.as_ref();
        matches!(step, Step::ApplyPolicies(name) if refused.is_some_and(|failure| failure.revision == *name))
    }

    /// The order that the object is.
    fn order(object: &RuntimeNode) -> String {
        order(&object.spec)
    }
}

/// Steps that are over at once, if they come off: what follows is told. For each change of each node, what the API server is told counts.
fn quick(step: &Step) -> bool {
    matches!(
        step,
        Step::Fetch(_)
            | Step::Check(_)
            | Step::HandOver(_)
            | Step::RefusePolicies { .. }
            | Step::Supervise
            | Step::Commit(_)
            | Step::GiveUp { .. }
    )
}

/// The revision that a step is about.
fn step_revision(step: &Step) -> Option<&str> {
    match step {
        Step::Rest | Step::Wait | Step::Supervise | Step::Recover | Step::Release => None,
        Step::Fetch(revision)
        | Step::Check(revision)
        | Step::HandOver(revision)
        | Step::ApplyPolicies(revision)
        | Step::Apply(revision) => Some(revision),
        Step::Commit(revision) => Some(revision),
        Step::RefusePolicies { revision, .. }
        | Step::Restart { revision, .. }
        | Step::Adopt { revision, .. }
        | Step::GiveBack { revision, .. }
        | Step::ConfigureKubelet { revision, .. }
        | Step::GiveUp { revision, .. } => Some(revision),
    }
}
