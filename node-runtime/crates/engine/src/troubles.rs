//! What went wrong lately: pulls, runs, creations and starts that failed, containers that ended badly. `berth doctor` asks for it.
//!
//! Owns: a bounded memory of them. Must not: judge, or keep anything that a caller was not told: messages are those of the errors,
//! which carry no credential. A daemon that starts again begins with none.
use crate::clock;
use crate::pod::Pod;
use berth_model::{ContainerConfig, Error, ErrorKind, ExitReason, ExitStatus, PodMetadata, UnixNanos};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Failures that are kept of each kind.
const KEPT: usize = 64;
/// Most bytes of a name and of a message.
const LONGEST: usize = 1024;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// A pull.
    Pull,
    /// A pod's run.
    Run,
    /// A container's creation.
    Create,
    /// A container's start.
    Start,
    /// A container ended with an error.
    Exit,
}

impl TroubleKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Run => "run",
            Self::Create => "create",
            Self::Start => "start",
            Self::Exit => "exit",
        }
    }
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What failed.
    pub kind: TroubleKind,
    /// When.
    pub at: UnixNanos,
    /// The reference, `namespace/pod`, or `namespace/pod/container`.
    pub object: String,
    /// The error's kind; for ends of containers `Internal`.
    pub error: ErrorKind,
    /// What the caller was told; for ends of containers the reason and the exit code.
    pub message: String,
}

/// The memory.
#[derive(Default)]
pub(crate) struct Troubles(Mutex<[VecDeque<Trouble>; 5]>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, [VecDeque<Trouble>; 5]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kind: TroubleKind, object: String, error: ErrorKind, message: &str) {
        let trouble = Trouble { kind, at: clock::now(), object: cut(&object), error, message: cut(message) };
        let kept = &mut self.lock()[kind as usize];
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(trouble);
    }

    /// A pull failed.
    pub(crate) fn pull(&self, reference: &str, error: &Error) {
        self.add(TroubleKind::Pull, reference.to_owned(), error.kind(), error.message());
    }

    /// A pod could not be run.
    pub(crate) fn run(&self, pod: &PodMetadata, error: &Error) {
        self.add(TroubleKind::Run, format!("{}/{}", pod.namespace, pod.name), error.kind(), error.message());
    }

    /// A container could not be created.
    pub(crate) fn create(&self, pod: &Pod, container: &str, error: &Error) {
        self.add(TroubleKind::Create, name(pod, container), error.kind(), error.message());
    }

    /// A container could not be started.
    pub(crate) fn start(&self, pod: &Pod, container: &ContainerConfig, error: &Error) {
        self.add(TroubleKind::Start, name(pod, &container.metadata.name), error.kind(), error.message());
    }

    /// A container ended. One that ended well is no trouble; a start that failed has been told as such.
    pub(crate) fn exit(&self, pod: &Pod, container: &str, status: &ExitStatus) {
        if status.code != 0 && status.reason != ExitReason::StartError {
            let message = format!("{} (exit code {})", status.reason.as_str(), status.code);
            self.add(TroubleKind::Exit, name(pod, container), ErrorKind::Internal, &message);
        }
    }

    /// All, oldest first within a kind.
    pub(crate) fn all(&self) -> Vec<Trouble> {
        self.lock().iter().flatten().cloned().collect()
    }
}

impl crate::context::Engine {
    /// What went wrong lately, oldest first within a kind.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.troubles.all()
    }
}

fn name(pod: &Pod, container: &str) -> String {
    let record = pod.record();
    let metadata = &record.config.metadata;
    format!("{}/{}/{container}", metadata.namespace, metadata.name)
}

fn cut(text: &str) -> String {
    text[..(0..=LONGEST.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_kind_are_kept_and_cut() {
        let troubles = Troubles::default();
        for n in 0..3 * KEPT {
            troubles.pull(&format!("r/{n}"), &Error::internal("é".repeat(LONGEST)));
        }
        troubles.run(&PodMetadata { name: "web".into(), ..Default::default() }, &Error::internal("no"));
        let all = troubles.all();
        assert_eq!(all.len(), KEPT + 1, "pulls do not push out the others");
        assert_eq!(all[0].object, format!("r/{}", 2 * KEPT));
        assert!(all.iter().all(|t| t.message.len() <= LONGEST));
        assert_eq!((all[KEPT].kind, all[KEPT].object.as_str()), (TroubleKind::Run, "/web"));
    }
}
