//! Walks an operation's steps forward or back, with a record before and after each, so that any other process can go on from there.
//!
//! Owns: order, records, deadlines, and what happens when somebody wants it ended. Must not: know what a step does.
use super::hold::hold;
use super::record::{Lock, Writer};
use super::steps::{self, Node};
use super::talk::Talk;
use super::{boot_id, now_seconds};
use crate::layout::Layout;
use anyhow::{Result, anyhow, bail};
use berth_adopt::Plan;
use berth_adopt::journal::{Event, State, Way};
use berth_adopt::plan::Permission;
use berth_adopt::step::Step;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the undo of one step may take.
const UNDO_LIMIT: Duration = Duration::from_secs(240);
/// How long a step after the commit may take.
const TIDY_LIMIT: Duration = Duration::from_secs(120);

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All steps are done.
    Done,
    /// All are undone, for this reason.
    WalkedBack(String),
}

/// Somebody wants it ended: SIGTERM, SIGINT. A terminal that goes away does not.
pub(super) struct Interrupt {
    terminate: Signal,
    interrupt: Signal,
    _hangup: Signal,
}

impl Interrupt {
    /// From here on.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wanted(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "it was asked to end (SIGTERM)",
            _ = self.interrupt.recv() => "it was asked to end (SIGINT)",
        }
    }
}

/// An operation under way.
pub(super) struct Walk<'a> {
    layout: &'a Layout,
    writer: Writer,
    talk: Talk,
    _lock: Lock,
}

impl<'a> Walk<'a> {
    /// Goes on with the journal.
    pub(super) fn new(layout: &'a Layout, lock: Lock, talk: Talk) -> Result<Self> {
        let writer = Writer::open(layout, &lock)?;
        Ok(Self { layout, writer, talk, _lock: lock })
    }

    /// The last operation.
    pub(super) fn state(&self) -> Option<State> {
        self.writer.state()
    }

    /// The records.
    pub(super) fn records(&self) -> &[berth_adopt::journal::Record] {
        &self.writer.records
    }

    /// Begins an operation and does it. Errors: what could not be undone, or finished.
    pub(super) async fn begin(&mut self, plan: Plan, interrupt: &mut Interrupt) -> Result<Outcome> {
        self.writer.compact(self.layout)?;
        self.writer.append(Event::Begin { plan: Box::new(plan) })?;
        self.forward(Some(interrupt)).await
    }

    /// Goes on with an operation that somebody else began. `None` if there is nothing to do.
    pub(super) async fn recover(&mut self, reason: &str) -> Result<Option<Outcome>> {
        match self.state().map(|state| state.way()) {
            None | Some(Way::Nowhere) => Ok(None),
            Some(Way::Forward) => self.forward(None).await.map(Some),
            Some(Way::Back) => self.back(reason).await.map(Some),
        }
    }

    fn current(&self) -> Result<State> {
        self.state().ok_or_else(|| anyhow!("the journal has no operation"))
    }

    async fn forward(&mut self, mut interrupt: Option<&mut Interrupt>) -> Result<Outcome> {
        let state = self.current()?;
        let mut committed = state.done.contains(&Step::Commit);
        for step in state.plan.steps.iter().copied().filter(|step| !state.done.contains(step)) {
            let due = allowed(&state.plan, step);
            let begun = Instant::now();
            self.writer.append(Event::Enter { step })?;
            hold(state.plan.direction, step, "enter").await;
            let done = match due {
                Ok(()) => self.one(&state.plan, step, committed, interrupt.as_deref_mut()).await,
                Err(e) => Err(e),
            };
            hold(state.plan.direction, step, "leave").await;
            match done {
                Ok(()) => {
                    self.writer.append(Event::Done { step })?;
                    self.talk.step(step.name(), begun.elapsed());
                    committed |= step == Step::Commit;
                }
                Err(e) if committed => {
                    return Err(e.context(format!("{step}; `berth adopt recover` tries it again")));
                }
                Err(e) => return self.back(&format!("{step}: {e:#}")).await,
            }
        }
        self.writer.append(Event::End { done: true })?;
        Ok(Outcome::Done)
    }

    async fn one(&self, plan: &Plan, step: Step, committed: bool, interrupt: Option<&mut Interrupt>) -> Result<()> {
        let node = self.node(plan);
        let limit = if committed || interrupt.is_none() {
            TIDY_LIMIT
        } else {
            Duration::from_secs(plan.deadline.saturating_sub(now_seconds()))
        };
        let work = tokio::time::timeout(limit, steps::perform(&node, step));
        let ended = match interrupt.filter(|_| !committed) {
            Some(interrupt) => tokio::select! {
                ended = work => ended,
                why = interrupt.wanted() => bail!("{why}"),
            },
            None => work.await,
        };
        ended.unwrap_or_else(|_| Err(anyhow!("is not done within the operation's deadline")))
    }

    async fn back(&mut self, reason: &str) -> Result<Outcome> {
        self.talk.say(&format!("walking back: {reason}"));
        self.writer.append(Event::Back { reason: reason.to_owned() })?;
        let state = self.current()?;
        for step in state.entered.iter().rev().copied() {
            let begun = Instant::now();
            let undone = tokio::time::timeout(UNDO_LIMIT, steps::undo(&self.node(&state.plan), step)).await;
            match undone.unwrap_or_else(|_| Err(anyhow!("is not undone within {} s", UNDO_LIMIT.as_secs()))) {
                Ok(()) => {
                    self.writer.append(Event::Undone { step })?;
                    self.talk.step(&format!("undo {step}"), begun.elapsed());
                }
                Err(e) => {
                    self.writer.append(Event::Stuck { step, reason: format!("{e:#}") })?;
                    return Err(e.context(format!("{step} cannot be undone; `berth adopt recover` tries it again")));
                }
            }
        }
        self.writer.append(Event::End { done: false })?;
        let reason = self.current()?.back.unwrap_or_default();
        Ok(Outcome::WalkedBack(reason))
    }

    fn node<'b>(&'b self, plan: &'b Plan) -> Node<'b> {
        Node {
            layout: self.layout,
            plan,
            talk: &self.talk,
            same_boot: boot_id().is_ok_and(|boot| boot == plan.boot_id),
        }
    }
}

/// The permission must still count when the first pod is touched.
fn allowed(plan: &Plan, step: Step) -> Result<()> {
    match &plan.permission {
        Permission::Grant(grant) if step == Step::StopKubelet && grant.expires <= now_seconds() => {
            bail!("grant {} has expired", grant.id)
        }
        _ => Ok(()),
    }
}
