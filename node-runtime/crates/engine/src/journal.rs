//! What happened on the node lately, in words: for `berth events`, with a history for those who ask afterwards.
//!
//! Owns: the bounded history, and its subscribers. Must not: wait for anybody. It is kept in memory alone: a new daemon begins
//! with an empty one.
use crate::clock;
use crate::context::Engine;
use crate::events::EventKind;
use crate::record::PodRecord;
use berth_model::{ContainerId, Error, ErrorKind, PodId, Result, UnixNanos};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast::{self, error::RecvError};

/// Happenings that are kept, and that a subscriber may be behind.
const KEPT: usize = 2048;

/// To what it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A pod.
    Pod,
    /// A container.
    Container,
    /// An image.
    Image,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When.
    pub at: UnixNanos,
    /// To what.
    pub subject: Subject,
    /// What: docker's words (`create`, `start`, `die`, `oom`, `stop`, `destroy`, `pull`, `delete`).
    pub action: &'static str,
    /// Id of the pod, the container or the image.
    pub id: String,
    /// Names and figures.
    pub attributes: BTreeMap<&'static str, String>,
}

/// The history and who listens.
pub(crate) struct Journal(Mutex<Inner>);

struct Inner {
    kept: VecDeque<Arc<Happening>>,
    /// `None` when the daemon is about to end.
    sender: Option<broadcast::Sender<Arc<Happening>>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self(Mutex::new(Inner { kept: VecDeque::new(), sender: Some(broadcast::Sender::new(KEPT)) }))
    }
}

impl Journal {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happening: Happening) {
        let happening = Arc::new(happening);
        let mut inner = self.inner();
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(happening.clone());
        if let Some(sender) = &inner.sender {
            // Nobody may be listening.
            let _ = sender.send(happening);
        }
    }

    /// An image was pulled or removed.
    pub(crate) fn image(&self, action: &'static str, id: &str, name: &str) {
        let attributes = [("name", name.to_owned())].into();
        self.tell(Happening { at: clock::now(), subject: Subject::Image, action, id: id.to_owned(), attributes });
    }

    /// A pod or one of its containers has changed.
    pub(crate) fn changed(&self, kind: EventKind, whose: &str, pod: &PodId, record: &PodRecord) {
        let metadata = &record.config.metadata;
        let names = [("pod", metadata.name.clone()), ("namespace", metadata.namespace.clone())];
        let mut attributes: BTreeMap<&'static str, String> = names.into();
        let of_pod = whose == pod.as_str();
        let subject = if of_pod { Subject::Pod } else { Subject::Container };
        let mut actions = vec![match kind {
            EventKind::Created => "create",
            EventKind::Started => "start",
            EventKind::Stopped if of_pod => "stop",
            EventKind::Stopped => "die",
            EventKind::Deleted => "destroy",
        }];
        attributes.insert("name", metadata.name.clone());
        if !of_pod {
            attributes.insert("name", String::new());
            // One that is gone is called what it was called before.
            if let Some(before) = self.inner().kept.iter().rev().find(|h| h.id == whose) {
                let known =
                    ["name", "image"].into_iter().filter_map(|key| Some((key, before.attributes.get(key)?.clone())));
                attributes.extend(known);
            }
            let container = ContainerId::parse(whose).ok().and_then(|id| record.containers.get(&id));
            if let Some(container) = container {
                attributes.insert("name", container.config.metadata.name.clone());
                let image =
                    Some(&container.config.user_image).filter(|i| !i.is_empty()).unwrap_or(&container.config.image);
                attributes.insert("image", image.clone());
                if let (EventKind::Stopped, Some(exit)) = (kind, container.exit()) {
                    attributes.insert("exitCode", exit.code.to_string());
                    attributes.insert("reason", exit.reason.as_str().to_owned());
                    if exit.reason == berth_model::ExitReason::OomKilled {
                        actions.insert(0, "oom");
                    }
                }
            }
        }
        for action in actions {
            let (at, id, attributes) = (clock::now(), whose.to_owned(), attributes.clone());
            self.tell(Happening { at, subject, action, id, attributes });
        }
    }

    /// Ends all subscriptions.
    pub(crate) fn end(&self) {
        self.inner().sender = None;
    }
}

/// What is kept, oldest first, and what comes.
pub struct Happenings {
    /// What is kept.
    pub kept: Vec<Arc<Happening>>,
    receiver: broadcast::Receiver<Arc<Happening>>,
}

impl Happenings {
    /// The next one; `None` when the daemon is about to end. Errors: `ResourceExhausted` when this reader was too slow.
    pub async fn next(&mut self) -> Option<Result<Arc<Happening>>> {
        match self.receiver.recv().await {
            Ok(happening) => Some(Ok(happening)),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(lost)) => {
                let problem = format!("too slow: {lost} events are lost; ask again with --since");
                Some(Err(Error::new(ErrorKind::ResourceExhausted, problem)))
            }
        }
    }
}

impl Engine {
    /// What happened, and what will. Nothing is left out or told twice in between. Errors: `Unavailable` when the daemon is about
    /// to end.
    pub fn happenings(&self) -> Result<Happenings> {
        let inner = self.events.journal.inner();
        let sender = inner.sender.as_ref();
        let sender = sender.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the daemon is about to end"))?;
        Ok(Happenings { kept: inner.kept.iter().cloned().collect(), receiver: sender.subscribe() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_history_is_bounded_and_in_order() {
        let journal = Journal::default();
        for n in 0..=KEPT {
            journal.image("pull", &n.to_string(), "x");
        }
        let inner = journal.inner();
        assert_eq!((inner.kept.len(), inner.kept[0].id.as_str()), (KEPT, "1"));
        assert_eq!(inner.kept[KEPT - 1].attributes["name"], "x");
    }

    #[test]
    fn pods_are_told_by_their_words() {
        let journal = Journal::default();
        let pod = PodId::from_random([3; 32]);
        let mut config = berth_model::PodConfig::default();
        config.metadata.name = "web".into();
        let record = PodRecord::of_test(config);
        journal.changed(EventKind::Created, pod.as_str(), &pod, &record);
        journal.changed(EventKind::Stopped, &"c".repeat(64), &pod, &record);
        let inner = journal.inner();
        let told: Vec<_> = inner.kept.iter().map(|h| (h.subject, h.action, h.attributes["pod"].as_str())).collect();
        assert_eq!(told, [(Subject::Pod, "create", "web"), (Subject::Container, "die", "web")]);
    }
}
