//! Walks an operation's steps forward or back, with a record before and after each, so that any other process can go on from there.
//!
//! Owns: order, records, deadlines, and what happens when somebody wants it ended. Must not: know what a step does.
use super::hold::hold;
use super::interrupted::{Interrupted, Served, Why};
use super::node_lock::NodeLock;
use super::now_seconds;
use super::record::{Lock, Writer};
use super::steps::{self, Node};
use super::talk::Talk;
use crate::layout::Layout;
use anyhow::{Error, Result, anyhow};
use berth_adopt::Plan;
use berth_adopt::journal::{Event, State, Way};
use berth_adopt::plan::Permission;
use berth_adopt::step::{Direction, Step};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the undo of one step may take.
pub(super) const UNDO_LIMIT: Duration = Duration::from_secs(480);
/// How long a step may take once the kubelet is proven to be on the other runtime.
const TIDY_LIMIT: Duration = Duration::from_secs(120);
/// How often a step is done again whose runtime was killed meanwhile and has come back: one that dies ever again has a reason of its own.
const AGAIN: u32 = 2;

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

    /// Waits until it is wanted; why. A node that is shut down sends SIGTERM, a person SIGINT: only that one means the operation.
    pub(super) async fn wanted(&mut self) -> Error {
        tokio::select! {
            _ = self.terminate.recv() => Error::new(Interrupted("it was asked to end (SIGTERM)".to_owned())),
            _ = self.interrupt.recv() => anyhow!("it was asked to end (SIGINT)"),
        }
    }
}

/// An operation under way.
pub(super) struct Walk<'a> {
    layout: &'a Layout,
    writer: Writer,
    talk: Talk,
    at_start: bool,
    _locks: (NodeLock, Lock),
}

impl<'a> Walk<'a> {
    /// Goes on with the journal. Errors: another root of Berth changes this node; the journal cannot be read.
    pub(super) fn new(layout: &'a Layout, lock: Lock, talk: Talk) -> Result<Self> {
        let node = NodeLock::take()?;
        let writer = Writer::open(layout, &lock)?;
        Ok(Self { layout, writer, talk, at_start: false, _locks: (node, lock) })
    }

    /// Called while the node, or the daemon, is being started: what is waited for by others is not waited for here.
    pub(super) fn at_start(self) -> Self {
        Self { at_start: true, ..self }
    }

    /// The last operation.
    pub(super) fn state(&self) -> Option<State> {
        self.writer.state()
    }

    /// The records.
    pub(super) fn records(&self) -> &[berth_adopt::journal::Record] {
        &self.writer.records
    }

    /// Writes down that an operation begins. Errors: there is no room for its records, and nothing was changed.
    pub(super) fn begin(&mut self, plan: Plan) -> Result<()> {
        self.writer.compact(self.layout)?;
        self.writer.reserve(steps::room(&plan))?;
        let begun = self.writer.append(Event::Begin { plan: Box::new(plan) });
        begun.inspect_err(|_| self.writer.release())
    }

    /// Does what was begun. Errors: what could not be undone, or finished.
    pub(super) async fn go(&mut self, interrupt: &mut Interrupt) -> Result<Outcome> {
        self.forward(Some(interrupt)).await
    }

    /// Goes on with an operation that somebody else began. `None` if there is nothing to do.
    pub(super) async fn recover(&mut self, why: Why<'_>) -> Result<Option<Outcome>> {
        match self.state().map(|state| state.way()) {
            None | Some(Way::Nowhere) => Ok(None),
            Some(Way::Forward) => self.forward(None).await.map(Some),
            Some(Way::Back) => self.back(why).await.map(Some),
        }
    }

    /// Writes records for which there was no room. Errors: there is none yet.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.writer.flush()
    }

    fn current(&self) -> Result<State> {
        self.state().ok_or_else(|| anyhow!("the journal has no operation"))
    }

    /// Before the kubelet is proven to be on the other runtime, what fails is walked back; from then on it is finished, whoever does that.
    async fn forward(&mut self, mut interrupt: Option<&mut Interrupt>) -> Result<Outcome> {
        let state = self.current()?;
        let mut proven = state.done.contains(&Step::Verify);
        for step in state.plan.steps.iter().copied().filter(|step| !state.done.contains(step)) {
            let begun = Instant::now();
            let interrupt = interrupt.as_deref_mut().filter(|_| !proven);
            match self.step(&state.plan, step, interrupt).await {
                Ok(()) => {
                    self.talk.step(step.name(), begun.elapsed());
                    proven |= step == Step::Verify;
                }
                Err(e) if proven => {
                    return Err(e.context(format!("{step}; `berth adopt recover` tries it again")));
                }
                Err(e) => {
                    let interrupted = e.is::<Interrupted>();
                    return self.back(Why { reason: &format!("{step}: {e:#}"), interrupted }).await;
                }
            }
        }
        self.tell(Event::End { done: true });
        self.writer.release();
        Ok(Outcome::Done)
    }

    async fn step(&mut self, plan: &Plan, step: Step, interrupt: Option<&mut Interrupt>) -> Result<()> {
        allowed(plan, step)?;
        self.writer.append(Event::Enter { step })?;
        hold(plan.direction, step, "enter").await;
        let done = self.steadily(plan, step, interrupt).await;
        hold(plan.direction, step, "leave").await;
        done?;
        self.writer.append(Event::Done { step })
    }

    /// A runtime that is killed in the middle of a step comes back by itself, and says nothing of what the operation is for.
    async fn steadily(&self, plan: &Plan, step: Step, mut interrupt: Option<&mut Interrupt>) -> Result<()> {
        let mut left = if asks_a_runtime(plan, step) { AGAIN } else { 0 };
        loop {
            let served = Served::now(plan).await;
            let Err(e) = self.one(plan, step, interrupt.as_deref_mut()).await else { return Ok(()) };
            // Once the operation is proven, its steps end a runtime themselves.
            if interrupt.is_none() || e.is::<Interrupted>() || !served.came_back().await {
                return Err(e);
            }
            let why = format!("a runtime ended in the middle of it: {e:#}");
            match left {
                0 if asks_a_runtime(plan, step) => return Err(e),
                0 => return Err(Error::new(Interrupted(why))),
                _ => self.talk.say(&format!("{step} is done again: {why}")),
            }
            left -= 1;
        }
    }

    async fn one(&self, plan: &Plan, step: Step, interrupt: Option<&mut Interrupt>) -> Result<()> {
        let node = self.node(plan);
        let limit = match interrupt {
            None => TIDY_LIMIT,
            Some(_) => Duration::from_secs(plan.deadline.saturating_sub(now_seconds())),
        };
        let work = tokio::time::timeout(limit, steps::perform(&node, step));
        let ended = match interrupt {
            Some(interrupt) => tokio::select! {
                ended = work => ended,
                why = interrupt.wanted() => return Err(why),
            },
            None => work.await,
        };
        ended.unwrap_or_else(|_| Err(anyhow!("is not done within the operation's deadline")))
    }

    /// Undoes everything that was begun. A record that cannot be written stops no undo: each may be repeated.
    async fn back(&mut self, why: Why<'_>) -> Result<Outcome> {
        self.talk.say(&format!("walking back: {}", why.reason));
        steps::make_room(self.layout);
        self.tell(Event::Back { reason: why.reason.to_owned(), interrupted: why.interrupted });
        let state = self.current()?;
        for step in state.entered.iter().rev().copied() {
            let begun = Instant::now();
            let node = self.node(&state.plan);
            let undo = steps::undo(&node, step, state.done.contains(&step));
            let undone = tokio::time::timeout(UNDO_LIMIT, undo).await;
            match undone.unwrap_or_else(|_| Err(anyhow!("is not undone within {} s", UNDO_LIMIT.as_secs()))) {
                Ok(()) => {
                    self.tell(Event::Undone { step });
                    self.talk.step(&format!("undo {step}"), begun.elapsed());
                }
                Err(e) => {
                    self.tell(Event::Stuck { step, reason: format!("{e:#}") });
                    return Err(e.context(format!("{step} cannot be undone; `berth adopt recover` tries it again")));
                }
            }
        }
        self.tell(Event::End { done: false });
        self.writer.release();
        let reason = self.current()?.back.unwrap_or_default();
        Ok(Outcome::WalkedBack(reason))
    }

    fn tell(&mut self, event: Event) {
        if let Err(e) = self.writer.note(event) {
            self.talk.say(&format!("{e:#}; it goes on without that record"));
        }
    }

    fn node<'b>(&'b self, plan: &'b Plan) -> Node<'b> {
        Node { layout: self.layout, plan, talk: &self.talk, at_start: self.at_start }
    }
}

/// Steps that are nothing but questions to a runtime, and may simply be done again. A kubelet that was started with other settings ends when it
/// finds no runtime, so that its proof has to begin anew with it.
fn asks_a_runtime(plan: &Plan, step: Step) -> bool {
    let lives = plan.direction != Direction::Configure;
    matches!(step, Step::Images | Step::Canary | Step::ClearPods) || (step == Step::Verify && lives)
}

/// The permission must still count when the kubelet ends, and when the first pod does.
fn allowed(plan: &Plan, step: Step) -> Result<()> {
    let touches = matches!(step, Step::StopKubelet | Step::ClearPods);
    match &plan.permission {
        Permission::Grant(grant) if touches && grant.expires <= now_seconds() => {
            Err(Error::new(Interrupted(format!("grant {} has expired", grant.id))))
        }
        _ => Ok(()),
    }
}
