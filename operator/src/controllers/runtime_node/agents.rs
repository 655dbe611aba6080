//! What a node's agent's pod says of the agent. Pure.
//!
//! Owns: which states of a container mean that no agent answers, and what people can do about each. Must not: guess. A node without such a pod
//! (the agent may run otherwise), one whose container is being made and one that the scheduler has not looked at yet are left to the limits of the
//! rollout.
use berth_crds::AgentProblem;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};

/// How an agent fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// Its pod is Ready.
    Runs,
    /// Nothing is known that would keep it from running.
    Begins,
    /// It does not run, and nothing that would end this is under way.
    Down(Trouble),
}

/// What keeps an agent from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Of which kind it is.
    pub kind: Kind,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container; empty: the pod itself.
    pub container: String,
    /// The kubelet's word, or the scheduler's.
    pub reason: String,
    /// Everything, for people.
    pub message: String,
}

/// Kinds of trouble, each with a remedy of its own. The kubelet's words of one kind take turns (`ErrImagePull` and `ImagePullBackOff`): they are one trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The image cannot be had (pkg/kubelet/images/types.go of Kubernetes has the words).
    Image,
    /// The container cannot be made (pkg/kubelet/kuberuntime/kuberuntime_container.go).
    Container,
    /// It ends by itself.
    Crash,
    /// The pod was ended by the kubelet, as for want of memory or disk.
    Pod,
    /// The scheduler does not let the pod onto its node (PodReasonUnschedulable in staging/src/k8s.io/api/core/v1/types.go).
    Unschedulable,
}

/// The scheduler's word in the condition `PodScheduled` for a pod that fits nowhere; a pod of a DaemonSet may be on one node only.
const UNSCHEDULABLE: &str = "Unschedulable";

impl Kind {
    /// Of a word of the kubelet's.
    fn of(reason: &str) -> Self {
        match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => Self::Image,
            "CrashLoopBackOff" => Self::Crash,
            _ => Self::Container,
        }
    }

    fn remedy(self, namespace: &str, pod: &str) -> String {
        match self {
            Self::Image => "see that agent.image of the chart's values names an image that this node can pull \
                (imagePullSecrets, if its registry asks who pulls), or go back with helm rollback"
                .to_owned(),
            Self::Container => format!("kubectl -n {namespace} describe pod {pod} tells more; helm rollback goes back"),
            Self::Crash => {
                format!("its last words: kubectl -n {namespace} logs {pod} --previous; helm rollback goes back")
            }
            Self::Pod => format!("kubectl -n {namespace} describe pod {pod} tells more"),
            Self::Unschedulable => "see that agent.tolerations and agent.resources of the chart's values \
                let the pod onto this node, or make room there (kubectl describe node tells what is requested)"
                .to_owned(),
        }
    }
}

/// Most bytes of the kubelet's or the scheduler's own message.
const MAX_SAID: usize = 400;
/// What a container waits for that is being made.
const BEING_MADE: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// How the agent of that pod fares.
pub fn agent(pod: &Pod) -> Agent {
    let Some(status) = &pod.status else { return Agent::Begins };
    if status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True") {
        return Agent::Runs;
    }
    if status.phase.as_deref() == Some("Failed") {
        return Agent::Down(ended(pod, status));
    }
    if let Some(trouble) = unschedulable(pod, status) {
        return Agent::Down(trouble);
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.filter_map(|c| container(pod, c)).next().map_or(Agent::Begins, Agent::Down)
}

fn ended(pod: &Pod, status: &PodStatus) -> Trouble {
    let reason = status.reason.clone().unwrap_or_else(|| "Failed".to_owned());
    trouble(pod, Kind::Pod, "", reason, status.message.as_deref().unwrap_or_default())
}

fn unschedulable(pod: &Pod, status: &PodStatus) -> Option<Trouble> {
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let reason = scheduled.reason.as_deref().filter(|reason| *reason == UNSCHEDULABLE)?;
    let said = scheduled.message.as_deref().unwrap_or_default();
    Some(trouble(pod, Kind::Unschedulable, "", reason.to_owned(), said))
}

fn container(pod: &Pod, status: &ContainerStatus) -> Option<Trouble> {
    let made = |kind, reason: &str, said: &str| Some(trouble(pod, kind, &status.name, reason.to_owned(), said));
    let last = crash(status.last_state.as_ref());
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().filter(|reason| !BEING_MADE.contains(reason))?;
        let kind = Kind::of(reason);
        // How long the kubelet pauses says nothing, and is another time each time.
        let said = last.filter(|_| kind == Kind::Crash).or_else(|| waiting.message.clone()).unwrap_or_default();
        return made(kind, reason, &said);
    }
    // An init container that ended well is what should be.
    let now = crash(Some(state));
    let again = last.filter(|_| state.running.is_some() && !status.ready);
    now.or(again).and_then(|said| made(Kind::Crash, "CrashLoopBackOff", &said))
}

/// The kubelet's word for a container that its runtime does not know, with 137 in the place of an exit code (ContainerReasonStatusUnknown in
/// pkg/kubelet/container/runtime.go): on a node that was just taken over or given back, and no crash.
const NOT_KNOWN: &str = "ContainerStatusUnknown";

/// How a container ended, unless it ended well, or nobody knows how.
fn crash(state: Option<&ContainerState>) -> Option<String> {
    let ended = state?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let reason = ended.reason.as_deref().unwrap_or("Error");
    if reason == NOT_KNOWN {
        return None;
    }
    let said = ended.message.as_deref().map(|text| format!(": {}", text.trim())).unwrap_or_default();
    Some(format!("ended with {} ({reason}){said}", ended.exit_code))
}

fn trouble(pod: &Pod, kind: Kind, container: &str, reason: String, said: &str) -> Trouble {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let part = if container.is_empty() { String::new() } else { format!("container {container}: ") };
    let said: String =
        said.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_SAID).map(|(_, c)| c).collect();
    let said = if said.is_empty() { said } else { format!(": {said}") };
    let message = format!("pod {namespace}/{name}: {part}{reason}{said}; {}", kind.remedy(namespace, &name));
    Trouble { kind, pod: name, container: container.to_owned(), reason, message }
}

/// What a RuntimeNode is to say of its agent, if that is something else than it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It does not run.
    Problem(AgentProblem),
    /// It runs again.
    Over,
    /// Its pod is gone, and nothing is known.
    Unknown,
}

/// That, from what it says. A trouble is told once, whatever words take turns in it, and stays until the agent is well.
pub(super) fn change(before: Option<&AgentProblem>, agent: Option<&Agent>, now: &str) -> Option<Said> {
    match (before, agent) {
        (Some(_), None) => Some(Said::Unknown),
        (Some(_), Some(Agent::Runs)) => Some(Said::Over),
        (_, None | Some(Agent::Runs | Agent::Begins)) => None,
        (before, Some(Agent::Down(trouble))) => {
            let same = |b: &&AgentProblem| {
                b.pod == trouble.pod && b.container == trouble.container && kind_of(b) == trouble.kind
            };
            if before.filter(same).is_some() {
                return None;
            }
            Some(Said::Problem(AgentProblem {
                pod: trouble.pod.clone(),
                container: trouble.container.clone(),
                reason: trouble.reason.clone(),
                message: trouble.message.clone(),
                since: now.to_owned(),
            }))
        }
    }
}

fn kind_of(problem: &AgentProblem) -> Kind {
    match (problem.container.as_str(), problem.reason.as_str()) {
        ("", UNSCHEDULABLE) => Kind::Unschedulable,
        ("", _) => Kind::Pod,
        (_, reason) => Kind::of(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(ready: &str, phase: &str, container: &Value) -> Pod {
        let mut status =
            json!({"name": "agent", "image": "i", "imageID": "", "ready": ready == "True", "restartCount": 0});
        status.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let json = json!({"metadata": {"name": "berth-agent-x", "namespace": "berth-system"}, "spec": {"nodeName": "n"},
            "status": {"phase": phase, "reason": (phase == "Failed").then_some("Evicted"), "message": "The node was low on resource: memory.",
                "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [status]}});
        serde_json::from_value(json).unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"state": {"waiting": {"reason": reason, "message": message}}})
    }

    fn down(container: &Value) -> Trouble {
        match agent(&pod("False", "Pending", container)) {
            Agent::Down(trouble) => trouble,
            other => panic!("{other:?} of {container}"),
        }
    }

    #[test]
    fn what_the_kubelet_cannot_make_is_named_with_its_remedy() {
        let said = "Back-off pulling image \"r.example/berth-agent:none\"";
        for (reason, kind, remedy) in [
            ("ErrImagePull", Kind::Image, "agent.image"),
            ("ImagePullBackOff", Kind::Image, "agent.image"),
            ("InvalidImageName", Kind::Image, "agent.image"),
            ("ErrImageNeverPull", Kind::Image, "agent.image"),
            ("CreateContainerConfigError", Kind::Container, "describe pod berth-agent-x"),
            ("CreateContainerError", Kind::Container, "describe pod berth-agent-x"),
            ("RunContainerError", Kind::Container, "describe pod berth-agent-x"),
            // A word of a newer kubelet's.
            ("NoQuantumError", Kind::Container, "describe pod berth-agent-x"),
            ("CrashLoopBackOff", Kind::Crash, "logs berth-agent-x --previous"),
        ] {
            let trouble = down(&waiting(reason, said));
            assert_eq!((trouble.kind, trouble.reason.as_str()), (kind, reason));
            let begin = format!("pod berth-system/berth-agent-x: container agent: {reason}: {said}; ");
            assert!(trouble.message.starts_with(&begin) && trouble.message.contains(remedy), "{}", trouble.message);
        }
        assert!(down(&waiting("ErrImagePull", &"é".repeat(5000))).message.len() < 1000);
    }

    #[test]
    fn what_begins_or_runs_is_no_trouble() {
        for reason in ["ContainerCreating", "PodInitializing"] {
            assert_eq!(agent(&pod("False", "Pending", &waiting(reason, ""))), Agent::Begins);
        }
        let running = json!({"state": {"running": {}}});
        assert_eq!(agent(&pod("False", "Running", &running)), Agent::Begins);
        assert_eq!(agent(&pod("True", "Running", &running)), Agent::Runs);
        assert_eq!(agent(&Pod::default()), Agent::Begins);
        // Restarted once, and well again.
        let again =
            json!({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
        assert_eq!(agent(&pod("True", "Running", &again)), Agent::Runs);
        // Its node was just taken over: its former container is the former runtime's.
        let over = json!({"state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}});
        assert_eq!(agent(&pod("False", "Running", &over)), Agent::Begins);
    }

    #[test]
    fn what_no_scheduler_lets_onto_its_node_is_named_with_what_it_says() {
        let pod = |reason: &str, said: &str| {
            let json = json!({"metadata": {"name": "berth-agent-x", "namespace": "berth-system"}, "spec": {"nodeName": "n"},
                "status": {"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": reason, "message": said}]}});
            serde_json::from_value::<Pod>(json).unwrap()
        };
        let said = "0/1 nodes are available: 1 Insufficient cpu.";
        let Agent::Down(trouble) = agent(&pod("Unschedulable", said)) else { panic!("it fits nowhere") };
        let begin = format!("pod berth-system/berth-agent-x: Unschedulable: {said}; see that agent.tolerations ");
        assert!(trouble.kind == Kind::Unschedulable && trouble.message.starts_with(&begin), "{trouble:?}");
        // Somebody holds it back on purpose; what the scheduler itself cannot do, it tries again.
        for reason in ["SchedulingGated", "SchedulerError", ""] {
            assert_eq!(agent(&pod(reason, "")), Agent::Begins, "{reason}");
        }
        let Some(Said::Problem(told)) = change(None, Some(&Agent::Down(trouble)), "T1") else { panic!("it is told") };
        let other = Agent::Down(down(&waiting("ErrImagePull", "no")));
        assert!(
            matches!(change(Some(&told), Some(&other), "T2"), Some(Said::Problem(p)) if p.reason == "ErrImagePull")
        );
        // The scheduler counts anew each time: it is the same trouble.
        let Agent::Down(again) = agent(&pod("Unschedulable", "1 Insufficient memory")) else { panic!("still") };
        assert_eq!(change(Some(&told), Some(&Agent::Down(again)), "T2"), None);
    }

    #[test]
    fn one_that_ends_is_down_in_each_part_of_its_round() {
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "no journal\n"}});
        let back_off =
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}});
        let said: Vec<_> = [
            json!({ "state": ended }),
            json!({"state": back_off, "lastState": ended}),
            json!({"state": {"running": {}}, "lastState": ended}),
        ]
        .map(|state| down(&state))
        .into();
        assert!(
            said[0].message.contains("CrashLoopBackOff: ended with 1 (Error): no journal; "),
            "{}",
            said[0].message
        );
        assert!(said.iter().all(|trouble| *trouble == said[0]), "{said:#?}");
        let Agent::Down(evicted) = agent(&pod("False", "Failed", &json!({}))) else { panic!("it was evicted") };
        assert!(evicted.kind == Kind::Pod && evicted.message.contains("Evicted: The node was low"), "{evicted:?}");
    }

    #[test]
    fn a_trouble_is_told_once_until_it_is_over_or_another_one() {
        let down = |reason| Agent::Down(down(&waiting(reason, "no")));
        let Some(Said::Problem(told)) = change(None, Some(&down("ErrImagePull")), "T1") else { panic!("it is told") };
        assert_eq!((told.pod.as_str(), told.container.as_str(), told.since.as_str()), ("berth-agent-x", "agent", "T1"));
        assert_eq!(change(Some(&told), Some(&down("ImagePullBackOff")), "T2"), None);
        assert_eq!(change(Some(&told), Some(&Agent::Begins), "T2"), None);
        assert!(
            matches!(change(Some(&told), Some(&down("CreateContainerError")), "T2"), Some(Said::Problem(p)) if p.since == "T2")
        );
        assert_eq!(change(Some(&told), Some(&Agent::Runs), "T2"), Some(Said::Over));
        assert_eq!(change(Some(&told), None, "T2"), Some(Said::Unknown));
        assert_eq!(change(None, Some(&Agent::Begins), "T2"), None);
        assert_eq!(change(None, Some(&Agent::Runs), "T2"), None);
        assert_eq!(change(None, None, "T2"), None);
    }
}
