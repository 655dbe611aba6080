//! What is said of a node: a pure function of what was found, remembered and planned. It changes only when one of them does, so that
//! nothing is written for nothing.
use crate::facts::{AdoptPhase, Facts, OUTDATED};
use crate::journal::{Failure, Journal};
use crate::plan::{Plan, Step, order};
use crate::time;
use berth_crds::{
    Asks, Capabilities, Condition, Drift, Enforcement, FailedRevision, NodeState, Phase, PrefetchStatus, RuntimeNode,
    RuntimeNodeStatus, compare_versions,
};

/// Most entries of a list, but for decisions; an object on whose node few policies decide stays below 4 KiB.
const MAX_ENTRIES: usize = 16;
/// Most policies whose decisions are told: all that a cluster's set may have (`operator/src/controllers/image_policy/room.rs`), and what the
/// definition takes. The operator adds these up for each policy: one that were left out would count as one that denied nothing.
const MAX_DECISIONS: usize = 200;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 512;

/// The status of that node.
pub fn status(object: &RuntimeNode, journal: &Journal, facts: &Facts, plan: &Plan, now: u64) -> RuntimeNodeStatus {
    let former = object.status.clone().unwrap_or_default();
    let daemon = facts.daemon.as_ref();
    let ours = facts.adoption.phase == AdoptPhase::Adopted;
    let same_phase = former.phase == plan.phase && former.phase_since.is_some();
    let held = journal.current.as_ref();
    let mut status = RuntimeNodeStatus {
        observed_generation: object.metadata.generation,
        node_uid: object.spec.node_uid.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_version: daemon.map(|d| d.version.clone()),
        newest_version: facts.versions.iter().max_by(|a, b| compare_versions(a, b)).cloned(),
        boot_id: Some(facts.boot_id.clone()),
        state: state(facts, &former),
        phase: plan.phase,
        phase_since: if same_phase { former.phase_since.clone() } else { Some(time::text(now)) },
        message: plan.message.as_deref().map(short),
        asks: asks(object, plan),
        current_revision: held.map(|h| h.revision.clone()),
        current_since: held.map(|h| time::text(h.since)),
        loaded_revision: daemon.filter(|d| d.pending.is_empty()).and_then(|d| d.configuration.clone()),
        last_known_good: journal.previous.clone(),
        policy_revision: daemon.and_then(|d| d.policies.clone()),
        failed: journal.failed.as_ref().map(failed),
        healthy: healthy(facts, ours),
        attempts: journal.attempt.as_ref().filter(|a| a.order == order(&object.spec)).map_or(0, |a| a.tries),
        crash_count: journal.crashes.count,
        drift: drift(facts),
        capabilities: Capabilities { cgroup_driver: driver(journal), ..facts.capabilities.clone() },
        enforcement: enforcement(object, journal, facts, plan),
        prefetch: daemon
            .and_then(|d| d.prefetch.clone())
            .map(|p| PrefetchStatus { message: p.message.as_deref().map(short), ..p }),
        conditions: Vec::new(),
    };
    status.conditions = conditions(&former, &status, facts, object.metadata.generation, now);
    status
}

/// What cannot be found out now is what it was.
fn state(facts: &Facts, former: &RuntimeNodeStatus) -> NodeState {
    match facts.adoption.phase {
        AdoptPhase::Adopted => NodeState::Managed,
        AdoptPhase::NotAdopted => NodeState::Foreign,
        AdoptPhase::Returned => NodeState::Absent,
        AdoptPhase::Unknown | AdoptPhase::Underway | AdoptPhase::Left => former.state,
    }
}

fn asks(object: &RuntimeNode, plan: &Plan) -> Option<Asks> {
    let (revision, disruption) = (object.spec.desired_revision.clone()?, plan.asks?);
    let asks = Asks { revision, desired_since: object.spec.desired_since.clone(), disruption };
    (plan.phase == Phase::AwaitingGrant).then_some(asks)
}

/// The kubelet's, not the daemon's: those are the same but for moments, in which the node is not yet there.
fn driver(journal: &Journal) -> String {
    journal.kubelet.as_ref().map(|kubelet| kubelet.cgroup_driver.clone()).unwrap_or_default()
}

/// A node of another runtime is well if its kubelet runs: no more is ours to say.
fn healthy(facts: &Facts, ours: bool) -> bool {
    let daemon = facts.daemon.as_ref().is_some_and(|d| d.troubles.is_empty());
    facts.kubelet.is_some() && (facts.adoption.phase.foreign() || (ours && daemon))
}

fn drift(facts: &Facts) -> Vec<Drift> {
    let daemon = facts.daemon.iter().flat_map(|daemon| &daemon.drift);
    facts.adoption.drift.iter().chain(daemon).take(MAX_ENTRIES).cloned().collect()
}

/// In words, with what to do where nobody has changed the file itself.
fn drifted(drift: &Drift) -> String {
    let remedy = match drift.kind.as_str() {
        OUTDATED => {
            ": the unit that it overrides has another command line since; give the node back (state: Absent) and take it over again"
        }
        _ => "",
    };
    format!("{} ({}{remedy})", drift.path, drift.kind)
}

fn short(text: &str) -> String {
    if text.chars().count() <= MAX_MESSAGE {
        return text.to_owned();
    }
    text.chars().take(MAX_MESSAGE - 1).chain(['…']).collect()
}

fn failed(failure: &Failure) -> FailedRevision {
    FailedRevision {
        revision: failure.revision.clone(),
        reason: failure.reason.clone(),
        message: short(&failure.message),
        at: time::text(failure.at),
        desired_since: (!failure.order.is_empty()).then(|| failure.order.clone()),
    }
}

fn enforcement(object: &RuntimeNode, journal: &Journal, facts: &Facts, plan: &Plan) -> Enforcement {
    let wanted = object.spec.policy_revision.as_ref();
    // A node that is not taken over with them. Those that cannot be had yet say nothing: they are waited for.
    let unfit = plan.phase == Phase::AwaitingPolicies && plan.step == Step::Rest;
    let refused = journal.refused_policies.as_ref().filter(|f| Some(&f.revision) == wanted);
    let (result, message) = match (&facts.daemon, refused) {
        _ if unfit => ("Refused", plan.message.as_deref().map(short)),
        (_, Some(failure)) => ("Refused", Some(short(&failure.message))),
        (Some(daemon), None) if daemon.policies.is_some() && daemon.policies.as_ref() == wanted => ("Enforcing", None),
        _ => ("Unknown", None),
    };
    let decisions = facts.daemon.iter().flat_map(|d| d.decisions.iter().take(MAX_DECISIONS).cloned()).collect();
    Enforcement { result: result.to_owned(), message, decisions }
}

fn conditions(
    former: &RuntimeNodeStatus,
    status: &RuntimeNodeStatus,
    facts: &Facts,
    generation: Option<i64>,
    now: u64,
) -> Vec<Condition> {
    let (not_staged, why) = facts.staging.clone().unzip();
    let idle = status.phase == Phase::Idle;
    let said = status.message.clone().unwrap_or_default();
    let drifted = status.drift.iter().map(drifted).collect::<Vec<_>>().join(", ");
    let enforcing = match status.enforcement.result.as_str() {
        "Enforcing" => "True",
        "Refused" => "False",
        _ => "Unknown",
    };
    let word = |yes: bool| if yes { "True" } else { "False" };
    let all = [
        ("Ready", word(idle && status.healthy), format!("{:?}", status.phase), said.clone()),
        ("Healthy", word(status.healthy), if status.healthy { "Well" } else { "Unwell" }.to_owned(), said),
        (
            "Enforcing",
            enforcing,
            status.enforcement.result.clone(),
            status.enforcement.message.clone().unwrap_or_default(),
        ),
        (
            "Drifted",
            word(!status.drift.is_empty()),
            if status.drift.is_empty() { "AsLeft" } else { "FilesChanged" }.to_owned(),
            short(&drifted),
        ),
        (
            "Staged",
            word(not_staged.is_none()),
            not_staged.unwrap_or("Staged").to_owned(),
            short(&why.unwrap_or_default()),
        ),
    ];
    let condition = |(kind, value, reason, message): (&str, &str, String, String)| {
        let same = former.conditions.iter().find(|c| c.kind == kind && c.status == value);
        Condition {
            kind: kind.to_owned(),
            status: value.to_owned(),
            observed_generation: generation,
            last_transition_time: same.map_or_else(|| time::text(now), |c| c.last_transition_time.clone()),
            reason,
            message,
        }
    };
    all.into_iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Adoption, Daemon};
    use crate::journal::Begun;
    use berth_crds::{PolicyDecisions, RuntimeNodeSpec};

    fn idle() -> Plan {
        Plan { step: Step::Rest, phase: Phase::Idle, message: None, asks: None }
    }

    fn facts() -> Facts {
        let daemon = Daemon {
            version: "0.1.0".to_owned(),
            configuration: Some("c".to_owned()),
            policies: Some("p".to_owned()),
            ..Daemon::default()
        };
        Facts {
            boot_id: "b".to_owned(),
            adoption: Adoption { phase: AdoptPhase::Adopted, ..Adoption::default() },
            daemon: Some(daemon),
            kubelet: Some(5),
            ..Facts::default()
        }
    }

    fn object() -> RuntimeNode {
        let spec = RuntimeNodeSpec { policy_revision: Some("p".to_owned()), ..RuntimeNodeSpec::default() };
        RuntimeNode::new("node", spec)
    }

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let mut journal = Journal::default();
        journal.commit("c", 50);
        let mut object = object();
        let first = status(&object, &journal, &facts(), &idle(), 100);
        assert!(first.healthy && first.state == NodeState::Managed && first.enforcement.result == "Enforcing");
        assert_eq!(first.loaded_revision.as_deref(), Some("c"));
        assert_eq!(first.current_since.as_deref(), Some("1970-01-01T00:00:50Z"));
        object.status = Some(first.clone());
        assert_eq!(status(&object, &journal, &facts(), &idle(), 200), first, "time alone changes nothing");
    }

    /// It is told no revision of a newer one: operator/src/controllers/rollout/build.rs.
    #[test]
    fn the_newest_version_that_is_there_is_told() {
        let of = |versions: &[&str]| {
            let facts = Facts { versions: versions.iter().map(|&v| v.to_owned()).collect(), ..facts() };
            status(&object(), &Journal::default(), &facts, &idle(), 100).newest_version
        };
        assert_eq!(of(&["0.10.0", "0.9.0", "0.10.0-rc.1"]).as_deref(), Some("0.10.0"));
        assert_eq!(of(&[]), None);
    }

    /// The operator takes none for nothing begun under the leave of this order.
    #[test]
    fn attempts_under_another_order_are_none_of_this_one() {
        let mut journal = Journal::default();
        journal.begin("c", "1", Begun::Adopt, 50);
        let mut object = object();
        let mut under = |order: &str| {
            object.spec.desired_since = Some(order.to_owned());
            status(&object, &journal, &facts(), &idle(), 100).attempts
        };
        assert_eq!((under("1"), under("2")), (1, 0));
    }

    #[test]
    fn the_decisions_of_every_policy_of_a_set_are_told() {
        let decided = |n| PolicyDecisions { policy: format!("p{n:03}"), denied: n, warned: 0 };
        let mut facts = facts();
        if let Some(daemon) = &mut facts.daemon {
            daemon.decisions = (0..300).map(decided).collect();
        }
        let told = status(&object(), &Journal::default(), &facts, &idle(), 100).enforcement.decisions;
        assert_eq!(
            told,
            (0..200).map(decided).collect::<Vec<_>>(),
            "as many as a set may have, and the definition takes"
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut journal = Journal::default();
        let failure = Failure {
            revision: "p".to_owned(),
            message: "x".repeat(2000),
            reason: "Refused".to_owned(),
            ..Failure::default()
        };
        journal.refused_policies = Some(failure.clone());
        journal.give_up(failure, false);
        let mut facts = facts();
        let drift = |path: &str, kind: &str| Drift { path: path.to_owned(), kind: kind.to_owned() };
        facts.adoption.drift = vec![drift("/etc/x", "Changed"), drift("/etc/y", OUTDATED)];
        facts.staging = Some(("InsufficientDisk", "make room".to_owned()));
        if let Some(daemon) = &mut facts.daemon {
            daemon.policies = None;
            daemon.pending = vec!["spec.network.mode".to_owned()];
            daemon.troubles = vec!["NetworkReady".to_owned()];
        }
        let status = status(&object(), &journal, &facts, &idle(), 100);
        assert!(!status.healthy && status.loaded_revision.is_none());
        assert_eq!(status.enforcement.result, "Refused");
        assert_eq!(status.failed.unwrap().message.chars().count(), MAX_MESSAGE);
        let values: Vec<_> = status.conditions.iter().map(|c| (c.kind.as_str(), c.status.as_str())).collect();
        let wanted = [
            ("Ready", "False"),
            ("Healthy", "False"),
            ("Enforcing", "False"),
            ("Drifted", "True"),
            ("Staged", "False"),
        ];
        assert_eq!(values, wanted);
        assert_eq!(status.conditions[4].reason, "InsufficientDisk");
        let drifted = &status.conditions[3].message;
        assert!(drifted.starts_with("/etc/x (Changed), /etc/y (Outdated: ") && drifted.contains("state: Absent"));
    }

    #[test]
    fn policies_that_keep_a_node_from_being_taken_over_are_told_where_those_of_other_nodes_are() {
        let mut facts = facts();
        (facts.adoption.phase, facts.daemon) = (AdoptPhase::NotAdopted, None);
        let told = |step| {
            let plan =
                Plan { step, phase: Phase::AwaitingPolicies, message: Some("p: \"a//b\"".to_owned()), asks: None };
            status(&object(), &Journal::default(), &facts, &plan, 100)
        };
        let refused = told(Step::Rest);
        assert_eq!((refused.state, refused.enforcement.result.as_str()), (NodeState::Foreign, "Refused"));
        assert_eq!(refused.enforcement.message.as_deref(), Some("p: \"a//b\""));
        assert_eq!(refused.conditions[0].reason, "AwaitingPolicies");
        assert_eq!(told(Step::Wait).enforcement.result, "Unknown", "they cannot be had now: nobody has refused them");
    }
}
