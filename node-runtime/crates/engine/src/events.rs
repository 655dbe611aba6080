//! Events of pods and containers, for those who subscribe (KEP-3386).
//!
//! Owns: what change of a record is which event, and the bounded queue of every subscriber. Must not: wait for a subscriber. One
//! that falls behind is told so and has to list again; nothing is lost without a word.
//!
//! Events are told under the lock of the pod's record, so those of a pod come in the order of its changes, each with the record
//! as it was right after.
use crate::clock;
use crate::journal::Journal;
use crate::record::{PodPhase, PodRecord};
use crate::table::PodView;
use berth_model::{ContainerId, ContainerState, Error, ErrorKind, PodId, PodState, Result, UnixNanos};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events that a subscriber may be behind. A node that starts all of its 110 pods at once tells about a thousand.
const BACKLOG: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It exists.
    Created,
    /// It runs.
    Started,
    /// It has ended.
    Stopped,
    /// It does not exist any more.
    Deleted,
}

/// One event of a pod or of a container.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To whom: the container's id, or the pod's.
    pub id: String,
    /// When.
    pub at: UnixNanos,
    /// The pod right after it, with all containers that exist then.
    pub pod: PodView,
}

/// All subscribers.
pub(crate) struct Events {
    sender: RwLock<Option<broadcast::Sender<Event>>>,
    /// The same in words, with a history.
    pub(crate) journal: Journal,
    /// Subscribers that were too slow.
    lost: Arc<AtomicU64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: RwLock::new(Some(broadcast::Sender::new(BACKLOG))),
            journal: Journal::default(),
            lost: Arc::default(),
        }
    }
}

impl Events {
    fn sender(&self) -> Option<broadcast::Sender<Event>> {
        self.sender.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn subscribe(&self) -> Result<Subscription> {
        let sender = self.sender().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the daemon is about to end"))?;
        Ok(Subscription(sender.subscribe(), self.lost.clone()))
    }

    /// Subscribers now, and those that were too slow since the daemon began.
    pub(crate) fn subscribers(&self) -> (u64, u64) {
        let now = self.sender().map_or(0, |sender| sender.receiver_count());
        (u64::try_from(now).unwrap_or(u64::MAX), self.lost.load(Ordering::Relaxed))
    }

    /// Tells what has changed since `before`.
    pub(crate) fn tell(&self, before: &Shape, id: &PodId, record: &Arc<PodRecord>) {
        self.tell_difference(before, &Shape::of(record), id, record);
    }

    /// Tells that a pod is gone, unless nobody ever saw it.
    pub(crate) fn tell_deleted(&self, id: &PodId, record: &Arc<PodRecord>) {
        self.tell_difference(&Shape::of(record), &Shape { state: None, containers: Vec::new() }, id, record);
    }

    fn tell_difference(&self, before: &Shape, after: &Shape, id: &PodId, record: &Arc<PodRecord>) {
        let sender = self.sender().filter(|sender| sender.receiver_count() > 0);
        for (kind, whose) in changes(before, after, id) {
            self.journal.changed(kind, &whose, id, record);
            let Some(sender) = &sender else { continue };
            let pod = PodView { id: id.clone(), record: record.clone() };
            // The last subscriber may just have gone.
            let _ = sender.send(Event { kind, id: whose, at: clock::now(), pod });
        }
    }
}

impl crate::context::Engine {
    /// Events from now on. Errors: `Unavailable` when the daemon is about to end.
    pub fn events(&self) -> Result<Subscription> {
        self.events.subscribe()
    }

    /// Ends all subscriptions, because the daemon is about to end.
    pub fn end_events(&self) {
        self.events.sender.write().unwrap_or_else(PoisonError::into_inner).take();
        self.events.journal.end();
    }
}

/// The queue of one subscriber.
pub struct Subscription(broadcast::Receiver<Event>, Arc<AtomicU64>);

impl Subscription {
    /// The next event; `None` when the daemon is about to end. Errors: `ResourceExhausted` when this subscriber was too slow and
    /// has lost events; it must list again.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(lost)) => {
                self.1.fetch_add(1, Ordering::Relaxed);
                let problem = format!(
                    "too slow: more than {BACKLOG} events were waiting and {lost} are lost; list again and subscribe anew"
                );
                Some(Err(Error::new(ErrorKind::ResourceExhausted, problem)))
            }
        }
    }
}

/// What of a record makes events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `None` while nobody may see it.
    state: Option<PodState>,
    containers: Vec<(ContainerId, ContainerState)>,
}

impl Shape {
    /// What is to be compared before and after a change.
    pub(crate) fn of(record: &PodRecord) -> Self {
        let state = (record.phase != PodPhase::Creating).then(|| record.state());
        Self { state, containers: record.containers.iter().map(|(id, c)| (id.clone(), c.state())).collect() }
    }
}

fn changes(before: &Shape, after: &Shape, pod: &PodId) -> Vec<(EventKind, String)> {
    let mut events = Vec::new();
    let of_pod: &[EventKind] = match (before.state, after.state) {
        (None, Some(PodState::Ready)) => &[EventKind::Created, EventKind::Started],
        (None, Some(PodState::NotReady)) => &[EventKind::Created, EventKind::Stopped],
        (Some(PodState::NotReady), Some(PodState::Ready)) => &[EventKind::Started],
        (Some(PodState::Ready), Some(PodState::NotReady)) => &[EventKind::Stopped],
        (Some(_), None) => &[EventKind::Deleted],
        _ => &[],
    };
    events.extend(of_pod.iter().map(|kind| (*kind, pod.to_string())));
    let find = |shape: &Shape, id: &ContainerId| shape.containers.iter().find(|(c, _)| c == id).map(|(_, s)| *s);
    for (id, now) in &after.containers {
        let was = find(before, id);
        if was.is_none() {
            events.push((EventKind::Created, id.to_string()));
        }
        if was == Some(*now) {
            continue;
        }
        match now {
            ContainerState::Running => events.push((EventKind::Started, id.to_string())),
            ContainerState::Exited | ContainerState::Unknown => events.push((EventKind::Stopped, id.to_string())),
            ContainerState::Created => {}
        }
    }
    if after.state.is_some() {
        let gone = before.containers.iter().filter(|(id, _)| find(after, id).is_none());
        events.extend(gone.map(|(id, _)| (EventKind::Deleted, id.to_string())));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContainerState::{Created as Waits, Exited, Running};
    use EventKind::{Created, Deleted, Started, Stopped};

    fn shape(state: Option<PodState>, container: Option<ContainerState>) -> Shape {
        let id = ContainerId::from_random([1; 32]);
        Shape { state, containers: container.map(|state| (id, state)).into_iter().collect() }
    }

    fn told(before: &Shape, after: &Shape) -> Vec<(EventKind, bool)> {
        let pod = PodId::from_random([2; 32]);
        changes(before, after, &pod).into_iter().map(|(kind, id)| (kind, id == pod.to_string())).collect()
    }

    #[test]
    fn changes_of_a_pod_are_told() {
        let (hidden, ready) = (shape(None, None), shape(Some(PodState::Ready), None));
        let stopped = shape(Some(PodState::NotReady), None);
        assert_eq!(told(&hidden, &ready), [(Created, true), (Started, true)]);
        assert_eq!(told(&ready, &ready), []);
        assert_eq!(told(&ready, &stopped), [(Stopped, true)]);
        assert_eq!(told(&stopped, &hidden), [(Deleted, true)]);
        assert_eq!(told(&hidden, &hidden), [], "nobody hears of a pod that never was ready");
    }

    #[test]
    fn changes_of_a_container_are_told() {
        let with = |state| shape(Some(PodState::Ready), state);
        assert_eq!(told(&with(None), &with(Some(Waits))), [(Created, false)]);
        assert_eq!(told(&with(Some(Waits)), &with(Some(Running))), [(Started, false)]);
        assert_eq!(told(&with(Some(Running)), &with(Some(Exited))), [(Stopped, false)]);
        assert_eq!(told(&with(Some(Waits)), &with(Some(Exited))), [(Stopped, false)], "a start that failed");
        assert_eq!(told(&with(Some(Exited)), &with(None)), [(Deleted, false)]);
        assert_eq!(told(&with(Some(Exited)), &with(Some(Exited))), []);
    }

    fn event() -> Event {
        let id = PodId::from_random([3; 32]);
        let record = Arc::new(PodRecord::of_test(berth_model::PodConfig::default()));
        Event { kind: Created, id: id.to_string(), at: 1, pod: PodView { id, record } }
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_the_others_miss_nothing() {
        let events = Events::default();
        let (mut slow, mut quick) = (events.subscribe().unwrap(), events.subscribe().unwrap());
        let sender = events.sender().unwrap();
        for _ in 0..=BACKLOG {
            sender.send(event()).unwrap();
            assert!(quick.next().await.unwrap().is_ok());
        }
        let error = slow.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(events.subscribers(), (2, 1));
        drop(sender);
        events.sender.write().unwrap().take();
        assert!(quick.next().await.is_none(), "the end of the daemon ends the stream");
        assert!(events.subscribe().is_err());
    }
}
