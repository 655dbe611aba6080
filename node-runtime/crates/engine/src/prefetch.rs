//! Images that the settings want on the node before a pod asks for them (`spec.images.prefetch`).
//!
//! Owns: which of them is pulled when, and what is told of it. Nothing is written down: what is on the node is found again by a daemon
//! that starts later. Must not: pull in a way of its own (policy, credentials, mirrors and limits are those of every pull), or have
//! anything wait for it.
use crate::context::Engine;
use crate::image::PullSpec;
use berth_model::{Error, Reference, Result};
use berth_registry::Auth;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

/// How many are pulled at a time; the memory and the connections of all pulls together are bounded by `spec.transfer`.
const PARALLEL: usize = 2;
/// Pauses after failures: those of the kubelet between two pulls of an image.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Where an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrefetchState {
    /// Its turn has not come yet.
    Waiting,
    /// It is being pulled.
    Pulling,
    /// It is on the node.
    Present,
    /// It was on the node, and somebody removed it since: it is fetched again by a daemon that starts later, or when it comes on the list anew.
    Removed,
    /// The last attempt failed; there will be another one.
    Failed,
}

impl PrefetchState {
    /// All.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Pulling, Self::Present, Self::Removed, Self::Failed];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pulling => "pulling",
            Self::Present => "present",
            Self::Removed => "removed",
            Self::Failed => "failed",
        }
    }
}

/// What is told of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefetched {
    /// The reference.
    pub reference: Reference,
    /// Where it is.
    pub state: PrefetchState,
    /// Why the last attempt failed; empty before and after.
    pub problem: String,
    /// Attempts that failed, one after the other.
    pub failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Due,
    Pulling,
    Done,
    After(Instant),
}

#[derive(Debug)]
struct Entry {
    reference: Reference,
    turn: Turn,
    problem: String,
    failures: u32,
}

/// The list, with what became of it. Decides only; time and randomness come from outside.
#[derive(Debug, Default)]
struct Plan(Vec<Entry>);

impl Plan {
    /// Takes over a list. What failed has its turn at once: whatever has changed may have been what it failed for.
    fn want(&mut self, wanted: &[Reference]) {
        let mut former = std::mem::take(&mut self.0);
        for reference in wanted {
            let known = former.iter().position(|e| e.reference == *reference).map(|at| former.swap_remove(at));
            let mut entry = known.unwrap_or_else(|| Entry {
                reference: reference.clone(),
                turn: Turn::Due,
                problem: String::new(),
                failures: 0,
            });
            if matches!(entry.turn, Turn::After(_)) {
                entry.turn = Turn::Due;
            }
            self.0.push(entry);
        }
    }

    /// Those to pull now, at most so many, in the order of the list. What is here needs no pull.
    fn take(&mut self, now: Instant, most: usize, is_here: impl Fn(&Reference) -> bool) -> Vec<Reference> {
        let mut taken = Vec::new();
        for entry in &mut self.0 {
            let due = match entry.turn {
                Turn::Due => true,
                Turn::After(until) => until <= now,
                Turn::Pulling | Turn::Done => false,
            };
            if !due {
                continue;
            }
            if is_here(&entry.reference) {
                entry.end(Ok(()), now, 0);
            } else if taken.len() < most {
                entry.turn = Turn::Pulling;
                taken.push(entry.reference.clone());
            }
        }
        taken
    }

    /// A pull has ended. `spread` is any number: nodes that failed together do not come again together.
    fn ended(&mut self, reference: &Reference, result: Result<(), &Error>, now: Instant, spread: u64) {
        if let Some(entry) = self.0.iter_mut().find(|e| e.reference == *reference && e.turn == Turn::Pulling) {
            entry.end(result, now, spread);
        }
    }

    /// When the next pause ends.
    fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(|e| if let Turn::After(until) = e.turn { Some(until) } else { None }).min()
    }
}

impl Entry {
    fn end(&mut self, result: Result<(), &Error>, now: Instant, spread: u64) {
        match result {
            Ok(()) => (self.turn, self.problem, self.failures) = (Turn::Done, String::new(), 0),
            Err(e) => {
                let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
                let share = u32::try_from(spread % 256).unwrap_or(0);
                self.failures = self.failures.saturating_add(1);
                self.turn = Turn::After(now + doubled * (896 + share) / 1024);
                e.message().clone_into(&mut self.problem);
            }
        }
    }

    fn state(&self, is_here: impl Fn(&Reference) -> bool) -> PrefetchState {
        match self.turn {
            Turn::Due => PrefetchState::Waiting,
            Turn::Pulling => PrefetchState::Pulling,
            Turn::Done if is_here(&self.reference) => PrefetchState::Present,
            Turn::Done => PrefetchState::Removed,
            Turn::After(_) => PrefetchState::Failed,
        }
    }
}

/// The engine's part of it.
#[derive(Debug, Default)]
pub(crate) struct Prefetch(Mutex<Plan>);

impl Prefetch {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pulls that run; one that is given up ends between two of its steps.
#[derive(Default)]
struct Pulls {
    tasks: JoinSet<Result<(), Error>>,
    running: HashMap<Id, (Reference, AbortHandle)>,
}

impl Pulls {
    fn start(&mut self, engine: Arc<Engine>, reference: Reference) {
        let text = reference.to_string();
        let spec = PullSpec {
            reference: text,
            platform: String::new(),
            auth: Auth::Anonymous,
            namespace: String::new(),
            progress: None,
        };
        let task = self.tasks.spawn(async move { engine.pull(spec).await.map(drop) });
        self.running.insert(task.id(), (reference, task));
    }

    fn keep(&mut self, wanted: &[Reference]) {
        self.running.retain(|_, (reference, task)| {
            let stays = wanted.contains(reference);
            if !stays {
                task.abort();
            }
            stays
        });
    }

    /// The next one that ends; `None` for one that was given up.
    async fn ended(&mut self) -> Option<(Reference, Result<(), Error>)> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(e) => (e.id(), Err(Error::internal(format!("the pull ended early: {e}")))),
        };
        self.running.remove(&id).map(|(reference, _)| (reference, result))
    }
}

impl Engine {
    /// Fetches what the settings want to be here, in the background, until the settings end.
    pub async fn follow_prefetch(self: Arc<Self>) {
        let mut settings = self.settings.clone();
        // Registries and credentials follow the settings a moment later, and change by themselves.
        let mut clients = self.images.clients();
        let (mut pulls, mut news) = (Pulls::default(), true);
        loop {
            if news {
                let wanted = settings.borrow_and_update().storage.prefetch.clone();
                pulls.keep(&wanted);
                self.prefetch.plan().want(&wanted);
            }
            let free = PARALLEL - pulls.running.len().min(PARALLEL);
            let next = {
                let mut plan = self.prefetch.plan();
                for reference in plan.take(Instant::now(), free, |r| self.is_here(r)) {
                    pulls.start(self.clone(), reference);
                }
                // Without a place it waits for a pull's end, however long it is due.
                if pulls.running.len() < PARALLEL { plan.next() } else { None }
            };
            news = tokio::select! {
                changed = settings.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                changed = clients.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                ended = pulls.ended(), if !pulls.tasks.is_empty() => {
                    if let Some((reference, result)) = ended {
                        self.prefetched(&reference, &result);
                    }
                    false
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => false,
            };
        }
    }

    fn prefetched(&self, reference: &Reference, result: &Result<(), Error>) {
        match result {
            Ok(()) => tracing::info!(%reference, "image is prefetched"),
            Err(e) => tracing::warn!(%reference, error = %e, "image cannot be prefetched yet; it is tried again"),
        }
        let spread = RandomState::new().build_hasher().finish();
        self.prefetch.plan().ended(reference, result.as_ref().copied(), Instant::now(), spread);
    }

    fn is_here(&self, reference: &Reference) -> bool {
        self.images.find(&reference.to_string()).is_ok_and(|found| found.is_some())
    }

    /// The images of `spec.images.prefetch`, in the order of the list.
    pub fn prefetch(&self) -> Vec<Prefetched> {
        let told = |e: &Entry| Prefetched {
            reference: e.reference.clone(),
            state: e.state(|r| self.is_here(r)),
            problem: e.problem.clone(),
            failures: e.failures,
        };
        self.prefetch.plan().0.iter().map(told).collect()
    }

    /// How many of them are in each state.
    pub(crate) fn prefetch_counts(&self) -> BTreeMap<PrefetchState, u64> {
        let mut counts = BTreeMap::from(PrefetchState::ALL.map(|state| (state, 0)));
        for entry in &self.prefetch.plan().0 {
            *counts.entry(entry.state(|r| self.is_here(r))).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(names: &[&str]) -> Vec<Reference> {
        names.iter().map(|name| Reference::parse(&format!("r.io/{name}:1")).unwrap()).collect()
    }

    fn states(plan: &Plan) -> Vec<&'static str> {
        plan.0.iter().map(|e| e.state(|_| true).as_str()).collect()
    }

    #[test]
    fn some_at_a_time_in_the_order_of_the_list() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        let all = references(&["a", "b", "c", "d"]);
        plan.want(&all);
        assert_eq!(plan.take(now, 2, |r| *r == all[1]), [all[0].clone(), all[2].clone()]);
        assert_eq!(states(&plan), ["pulling", "present", "pulling", "waiting"]);
        assert!(plan.take(now, 0, |_| false).is_empty());
        plan.ended(&all[0], Ok(()), now, 0);
        assert_eq!(plan.take(now, 1, |_| false), [all[3].clone()]);
        assert_eq!(states(&plan), ["present", "present", "pulling", "pulling"]);
        assert!(plan.next().is_none());
        assert_eq!(plan.0[0].state(|_| false), PrefetchState::Removed, "what somebody removed is not fetched again");
        assert!(plan.take(now, 9, |_| false).is_empty());
    }

    #[test]
    fn failures_are_told_and_tried_again_ever_more_seldom() {
        let (mut plan, mut now) = (Plan::default(), Instant::now());
        let all = references(&["a"]);
        plan.want(&all);
        let mut pauses = Vec::new();
        for round in 1..=8 {
            assert_eq!(plan.take(now, 2, |_| false), all);
            plan.ended(&all[0], Err(&Error::internal("no such place")), now, round * 37);
            assert_eq!(
                (plan.0[0].problem.as_str(), plan.0[0].failures),
                ("no such place", u32::try_from(round).unwrap())
            );
            assert!(plan.take(now, 2, |_| false).is_empty(), "not before its time");
            let until = plan.next().unwrap();
            pauses.push((until - now).as_secs_f64());
            now = until;
        }
        let near = |pause: f64, wanted: f64| (wanted * 0.87..wanted * 1.13).contains(&pause);
        assert!(near(pauses[0], 10.0) && near(pauses[1], 20.0) && near(pauses[7], 300.0), "{pauses:?}");
        plan.take(now, 2, |_| false);
        plan.ended(&all[0], Ok(()), now, 0);
        assert_eq!((plan.0[0].problem.as_str(), plan.0[0].failures), ("", 0));
    }

    #[test]
    fn another_list_lets_go_and_gives_what_failed_its_turn() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        let all = references(&["a", "b", "c"]);
        plan.want(&all);
        plan.take(now, 2, |_| false);
        plan.ended(&all[1], Err(&Error::internal("denied")), now, 0);
        // `a` goes while it is pulled, `b` has failed, `c` is new to nobody.
        plan.want(&references(&["c", "b"]));
        assert_eq!(states(&plan), ["waiting", "waiting"]);
        plan.ended(&all[0], Ok(()), now, 0);
        assert_eq!(plan.0.len(), 2, "the end of a pull that is not wanted any more says nothing");
        assert_eq!(plan.take(now, 2, |_| false), [all[2].clone(), all[1].clone()]);
        assert_eq!(plan.0[1].problem, "denied", "told until it is here");
        // Wanted again while the former pull ends.
        plan.want(&[]);
        plan.want(&all[..1]);
        plan.ended(&all[0], Ok(()), now, 0);
        assert_eq!(states(&plan), ["waiting"]);
    }
}
