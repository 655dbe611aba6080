//! Where the time of a start went: every operation of a pod on one line of time, with what lies between its steps.
//!
//! Owns: putting the recorded timelines together ([`lines`]), and one sentence on what dominated ([`advice`]); both are pure. Must not:
//! measure anything; the steps do that while they run.
mod advice;
mod lines;

use crate::context::Engine;
use crate::record::{ContainerRecord, Way};
use crate::table::PodView;
use berth_model::{ContainerId, Error, ErrorKind, Result, Timeline, UnixNanos};
use lines::Operation;

/// What a line of a report stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// A whole operation: run, pull, create, start.
    Operation,
    /// A named step, or a part of one.
    Step,
    /// Time inside an operation that no step accounts for.
    Unaccounted,
    /// Time between two operations: whoever gives the orders let it pass.
    Between,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it stands for.
    pub kind: LineKind,
    /// Its name, as in the figures: `start/setup/mounts`.
    pub name: String,
    /// Container that it belongs to; empty for the pod's own.
    pub container: String,
    /// How deep it lies in others: 0 is an operation.
    pub depth: u32,
    /// Begin, in microseconds since that of the report.
    pub at: u64,
    /// Duration in microseconds.
    pub micros: u64,
    /// Median of the last ones on this node, in microseconds; `None` where too few are known, or none is comparable.
    pub usual: Option<u64>,
}

/// All that is known of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartReport {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// The pod's id.
    pub pod_id: String,
    /// When the first operation began.
    pub began: UnixNanos,
    /// From then to the end of the last one, in microseconds.
    pub micros: u64,
    /// Every stretch of that time.
    pub lines: Vec<Line>,
    /// What took most of the time, and what can be done.
    pub advice: Vec<String>,
}

impl Engine {
    /// Explains the start of a pod with all its containers, or of one container, by id, unique prefix or name (`pod`,
    /// `namespace/pod`, `container`). Errors: `NotFound`; `InvalidArgument` for a name of several; `FailedPrecondition` where
    /// nothing is known, because the pod was started by a version that did not keep it.
    pub fn explain_start(&self, name: &str) -> Result<StartReport> {
        let (pod, container) = self.named(name)?;
        let operations = self.operations(&pod, container.as_ref());
        if operations.is_empty() {
            let problem =
                format!("no times are known of the start of {name}: it was started by a version that kept none");
            return Err(Error::new(ErrorKind::FailedPrecondition, problem));
        }
        let metadata = &pod.record.config.metadata;
        let (began, micros, lines) = lines::lines(operations, &self.starts.medians());
        let advice = advice::advice(micros, &lines);
        let pod_name = format!("{}/{}", metadata.namespace, metadata.name);
        Ok(StartReport { pod: pod_name, pod_id: pod.id.to_string(), began, micros, lines, advice })
    }

    fn named(&self, name: &str) -> Result<(PodView, Option<ContainerId>)> {
        if name.is_empty() {
            return Err(Error::invalid("name", "must not be empty"));
        }
        let mut pods = self.pods(&crate::PodFilter::default());
        let mut found = Vec::new();
        for (i, pod) in pods.iter().enumerate() {
            let m = &pod.record.config.metadata;
            if pod.id.as_str().starts_with(name) || m.name == name || format!("{}/{}", m.namespace, m.name) == name {
                found.push((i, None));
            }
        }
        if found.is_empty() {
            for (i, pod) in pods.iter().enumerate() {
                let of_pod = pod.record.containers.iter();
                let matching = of_pod.filter(|(id, c)| id.as_str().starts_with(name) || c.config.metadata.name == name);
                found.extend(matching.map(|(id, _)| (i, Some(id.clone()))));
            }
        }
        match found.len() {
            0 => Err(Error::not_found("pod or container", name)),
            1 => {
                let (i, container) = found.remove(0);
                Ok((pods.swap_remove(i), container))
            }
            n => {
                let problem = format!("{name:?} names {n} of them; use an id");
                Err(Error::new(ErrorKind::InvalidArgument, problem))
            }
        }
    }

    fn operations(&self, pod: &PodView, container: Option<&ContainerId>) -> Vec<Operation> {
        let record = &pod.record;
        let run = Timeline { began: record.ran.began, micros: record.ran.micros, phases: record.phases.clone() };
        let mut all = vec![Operation::new("run", "", run)];
        let wanted = record.containers.iter().filter(|(id, _)| container.is_none_or(|c| c == *id));
        for (id, container) in wanted {
            // Until it starts, what is known of it is in memory alone.
            let way = self.starts.way(id).unwrap_or_else(|| container.way.clone());
            all.extend(of_container(container, way));
        }
        all.retain(|operation| operation.timeline.began > 0);
        all
    }
}

fn of_container(container: &ContainerRecord, way: Way) -> Vec<Operation> {
    let name = container.config.metadata.name.as_str();
    let start = Timeline { began: way.start.began, micros: way.start.micros, phases: container.phases.clone() };
    let pull = way.pull.map(|pull| Operation::new(&format!("pull {}", pull.reference), name, pull.timeline));
    let failed = way.failed.map(|timeline| Operation::new("start (failed)", name, timeline));
    let made = [Operation::new("create", name, way.create), Operation::new("start", name, start)];
    pull.into_iter().chain(made).chain(failed).collect()
}
