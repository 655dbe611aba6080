//! What is remembered of starts beside the records: pulls and creations until a start takes them up, and how long each step
//! usually takes on this node.
//!
//! Owns: both memories, bounded. Must not: write to disk; a start's own record takes its story along with a write that happens
//! anyway, and what is kept here is only memory: a daemon that starts again learns from the records that it finds.
use crate::record::{PodRecord, PullTimes, Way};
use berth_model::{ContainerId, ImageId, Phases, Timeline};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Containers that were created and not started yet, at most; older ones lose their story.
const CREATED: usize = 1024;
/// Pulls whose image no container has used yet, at most.
const PULLED: usize = 128;
/// A container that is created later than this after a pull did not cause it.
const PULLED_FOR: Duration = Duration::from_secs(600);
/// Last durations that are kept of each step.
const LAST: usize = 64;
/// Fewer say nothing of what is usual.
const ENOUGH: usize = 3;
/// Names of steps, at most. They are a closed set, so this is never reached.
const NAMES: usize = 256;

/// The memory.
#[derive(Default)]
pub(crate) struct Starts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    created: VecDeque<(ContainerId, Way)>,
    pulled: VecDeque<(ImageId, Instant, PullTimes)>,
    usual: HashMap<String, VecDeque<u32>>,
}

impl Starts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image was pulled.
    pub(crate) fn pulled(&self, image: &ImageId, times: PullTimes) {
        let mut inner = self.lock();
        inner.pulled.retain(|(id, _, _)| id != image);
        if inner.pulled.len() == PULLED {
            inner.pulled.pop_front();
        }
        inner.pulled.push_back((image.clone(), Instant::now(), times));
    }

    /// A container was created. It is the one that its image was pulled for if it is the first to use it.
    pub(crate) fn created(&self, id: &ContainerId, image: Option<ImageId>, create: Timeline) {
        let mut inner = self.lock();
        inner.pulled.retain(|(_, at, _)| at.elapsed() < PULLED_FOR);
        let place = inner.pulled.iter().position(|(of, _, _)| Some(of) == image.as_ref());
        let pull = place.and_then(|place| inner.pulled.remove(place)).map(|(_, _, times)| times);
        if inner.created.len() == CREATED {
            inner.created.pop_front();
        }
        inner.created.push_back((id.clone(), Way { pull, create, ..Way::default() }));
    }

    /// What is known of a container that is about to start; it is kept in its record from now on.
    pub(crate) fn take_way(&self, id: &ContainerId) -> Option<Way> {
        let mut inner = self.lock();
        let place = inner.created.iter().position(|(of, _)| of == id)?;
        inner.created.remove(place).map(|(_, way)| way)
    }

    /// The same, for people who look before it is started.
    pub(crate) fn way(&self, id: &ContainerId) -> Option<Way> {
        self.lock().created.iter().find(|(of, _)| of == id).map(|(_, way)| way.clone())
    }

    /// Takes an operation that succeeded into what is usual.
    pub(crate) fn usual(&self, timeline: &Timeline) {
        self.learn(&timeline.phases);
    }

    fn learn(&self, phases: &Phases) {
        let mut inner = self.lock();
        for phase in &phases.0 {
            if inner.usual.len() >= NAMES && !inner.usual.contains_key(&phase.name) {
                continue;
            }
            let last = inner.usual.entry(phase.name.clone()).or_default();
            if last.len() == LAST {
                last.pop_front();
            }
            last.push_back(u32::try_from(phase.micros).unwrap_or(u32::MAX));
        }
    }

    /// Takes what a former daemon left.
    pub(crate) fn learn_record(&self, record: &PodRecord) {
        self.learn(&record.phases);
        for container in record.containers.values() {
            self.learn(&container.way.create.phases);
            self.learn(&container.phases);
        }
    }

    /// The median of each step's last durations, in microseconds.
    pub(crate) fn medians(&self) -> HashMap<String, u64> {
        let inner = self.lock();
        let known = inner.usual.iter().filter(|(_, last)| last.len() >= ENOUGH);
        known.map(|(name, last)| (name.clone(), median(last.iter().copied().collect()))).collect()
    }
}

fn median(mut values: Vec<u32>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(micros: u64) -> Timeline {
        let mut phases = Phases::default();
        phases.push("start/spawn", Duration::ZERO, Duration::from_micros(micros));
        Timeline { began: 1, micros, phases }
    }

    fn container(n: u16) -> ContainerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ContainerId::from_random(bytes)
    }

    #[test]
    fn a_pull_belongs_to_the_first_container_of_its_image() {
        let starts = Starts::default();
        let (image, other) = (ImageId::from_bytes([1; 32]), ImageId::from_bytes([2; 32]));
        starts.pulled(&image, PullTimes { reference: "r/app:1".into(), timeline: timeline(5) });
        starts.created(&container(1), Some(other), timeline(1));
        starts.created(&container(2), Some(image.clone()), timeline(1));
        starts.created(&container(3), Some(image), timeline(1));
        assert!(starts.take_way(&container(1)).unwrap().pull.is_none());
        assert_eq!(starts.way(&container(2)), starts.take_way(&container(2)));
        assert_eq!(starts.way(&container(2)), None, "it was taken");
        assert!(starts.take_way(&container(3)).unwrap().pull.is_none(), "the second one found it there");
    }

    #[test]
    fn memories_are_bounded() {
        let starts = Starts::default();
        for n in 0..3000 {
            starts.created(&container(n), None, timeline(1));
            let image = ImageId::from_bytes([u8::try_from(n % 251).unwrap(); 32]);
            starts.pulled(&image, PullTimes { reference: String::new(), timeline: timeline(1) });
            let mut phases = Phases::default();
            phases.push(format!("run/{n}"), Duration::ZERO, Duration::ZERO);
            starts.usual(&Timeline { phases, ..Timeline::default() });
        }
        let inner = starts.lock();
        assert_eq!((inner.created.len(), inner.pulled.len(), inner.usual.len()), (CREATED, PULLED, NAMES));
    }

    #[test]
    fn medians_follow_the_last_starts() {
        let starts = Starts::default();
        starts.usual(&timeline(10));
        starts.usual(&timeline(30));
        assert!(starts.medians().is_empty(), "two starts tell nothing");
        starts.usual(&timeline(20));
        assert_eq!(starts.medians()["start/spawn"], 20);
        for _ in 0..LAST {
            starts.usual(&timeline(500));
        }
        assert_eq!(starts.medians()["start/spawn"], 500, "what is long ago is forgotten");
    }
}
