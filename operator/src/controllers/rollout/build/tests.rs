//! What the planner is told of nodes and revisions.
use super::*;
use std::sync::Arc;

/// The table of fields tells people the defaults; these are those that count.
#[test]
fn the_defaults_are_those_of_the_table() {
    let mut spec = serde_json::json!({});
    for field in crds::all_fields().filter(|f| f.path.starts_with("spec.rollout.")) {
        let crds::Preset::Is(json) = field.default else { panic!("{} has a value", field.path) };
        let mut at = &mut spec;
        for part in field.path.split('.').skip(1) {
            at = &mut at[part];
        }
        *at = serde_json::from_str(json).unwrap();
    }
    let spec: crds::RuntimeConfigSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(strategy(&spec.rollout), Strategy::default());
}

#[test]
fn nodes_of_the_control_plane_are_asked_for_by_word_alone() {
    let asks = |json: serde_json::Value| {
        let strategy = strategy(&serde_json::from_value(json).unwrap());
        asks_for_control_plane(&Rollout { strategy, ..rollout() })
    };
    assert!(asks(serde_json::json!({"controlPlane": "Last"})));
    assert!(!asks(serde_json::json!({"controlPlane": "Exclude"})) && !asks(serde_json::json!({})));
}

fn rollout() -> Rollout {
    Rollout {
        target: Revision("r".to_owned()),
        came_through: None,
        last_known_good: None,
        bad: BTreeSet::new(),
        paused: false,
        strategy: Strategy::default(),
        beside: Beside::default(),
    }
}

#[test]
fn what_drains_may_lose_is_nothing_by_default() {
    let drain =
        |json: serde_json::Value| crate::controllers::rollout::drain::MayGo::of(&serde_json::from_value(json).unwrap());
    assert_eq!(drain(serde_json::json!({})), Default::default());
}

fn revision(name: &str, status: serde_json::Value) -> crds::RuntimeRevision {
    let mut object = crds::RuntimeRevision::new(name, Default::default());
    object.status = serde_json::from_value(status).unwrap();
    object
}

fn made(revisions: &[crds::RuntimeRevision], spec: serde_json::Value, status: serde_json::Value) -> Node {
    seen(revisions, serde_json::json!({}), spec, status)
}

/// With that condition `Ready` of its Node.
fn seen(
    revisions: &[crds::RuntimeRevision],
    ready: serde_json::Value,
    spec: serde_json::Value,
    status: serde_json::Value,
) -> Node {
    let mut world = World::default();
    world.revisions.extend(revisions.iter().map(|r| (r.name_any(), Arc::new(r.clone()))));
    let conditions = if ready["type"].is_null() { serde_json::json!([]) } else { serde_json::json!([ready]) };
    let node = serde_json::json!({"metadata": {"name": "n", "uid": "1"}, "status": {"conditions": conditions}});
    let node = serde_json::from_value(node).unwrap();
    let runtime_node = RuntimeNode {
        spec: serde_json::from_value(spec).unwrap(),
        status: serde_json::from_value(status).unwrap(),
        ..Default::default()
    };
    one(&world, &node, &runtime_node, 10_000, 900)
}

#[test]
fn a_retry_makes_failures_from_before_it_count_for_nothing() {
    let told = |at: u64, tried: u64| {
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(at)});
        // A clock that is ahead by hours says nothing about the order.
        let failed = serde_json::json!({"revision": "r", "reason": "", "message": "", "at": time::text(90_000),
            "desiredSince": time::text(tried)});
        (spec, serde_json::json!({"nodeUID": "1", "currentRevision": "old", "failed": failed}))
    };
    let retried = [revision("r", serde_json::json!({"retriedAt": time::text(5000)}))];
    let (spec, status) = told(4000, 4000);
    let node = made(&[revision("r", serde_json::json!({}))], spec.clone(), status.clone());
    assert!(node.gave_up(), "without a retry it has failed: {node:?}");
    let node = made(&retried, spec, status);
    assert!(
        node.failed.is_none() && node.settled() && node.has(&Revision("old".into())),
        "it can be told anew: {node:?}"
    );
    let (spec, status) = told(6000, 4000);
    let node = made(&retried, spec, status);
    assert!(!node.gave_up() && node.wants(&Revision("r".into())), "it is on its way: {node:?}");
    let (spec, status) = told(6000, 6000);
    assert!(made(&retried, spec, status).gave_up(), "it failed again");
}

/// What its agent says: `a_node_of_the_control_plane_that_nobody_asked_for_says_so_and_is_left_alone`
/// (node-runtime/crates/agent/src/run/tests/not_asked_for.rs).
#[test]
fn a_node_of_the_control_plane_that_nobody_asked_for_is_as_one_that_is_not_told() {
    let of = |revisions: &[crds::RuntimeRevision], desired: (&str, u64), asked: Option<bool>| {
        let (revision, since) = desired;
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": revision, "desiredSince": time::text(since),
            "controlPlane": asked});
        let failed = serde_json::json!({"revision": "r", "reason": "ControlPlane", "message": "", "at": time::text(4100),
            "desiredSince": time::text(4000)});
        let node = made(revisions, spec, serde_json::json!({"nodeUID": "1", "failed": failed}));
        (node.control_plane, node.failed.is_some(), node.desired.map(|(desired, _)| desired.0))
    };
    let told = |name: &str| Some(name.to_owned());
    assert_eq!(of(&[], ("r", 4000), Some(false)), (true, false, None), "it has failed at nothing");
    assert_eq!(of(&[], ("r", 5000), Some(true)), (true, false, told("r")), "it was asked for since, and is on its way");
    assert_eq!(of(&[], ("s", 5000), Some(true)), (true, false, told("s")));
    assert_eq!(of(&[], ("r", 4000), Some(true)), (false, true, told("r")), "it refuses though it is asked for");
    let retried = [revision("r", serde_json::json!({"retriedAt": time::text(4500)}))];
    assert_eq!(of(&retried, ("r", 4000), Some(false)), (false, false, None), "it is to look again");
}

/// As with the first revision ever, which leaves nothing to go back to: nobody takes the grant back.
#[test]
fn a_retry_does_not_wait_for_the_end_of_leave_that_was_used_in_vain() {
    let grant = serde_json::json!({"revision": "r", "disruption": "Drain", "expiresAt": time::text(20_000)});
    let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000), "grant": grant});
    let retried = [revision("r", serde_json::json!({"retriedAt": time::text(5000)}))];
    let told = |phase: &str, tried: u64| {
        let failed = serde_json::json!({"revision": "r", "reason": "", "message": "", "at": time::text(4500),
            "desiredSince": time::text(tried)});
        let status = serde_json::json!({"nodeUID": "1", "phase": phase, "failed": failed});
        made(&retried, spec.clone(), status).desired.is_some()
    };
    assert!(!told("Idle", 4000), "it can be told anew");
    assert!(told("RollingBack", 4000), "it still goes back");
    assert!(told("Idle", 3000), "it may be about to use its leave");
}

/// The phases are those of the agent's test `policies_that_are_edited_while_a_node_waits_for_leave_are_waited_for_too`.
#[test]
fn policies_that_a_node_waits_for_end_no_time() {
    let spec =
        serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(1000)});
    let in_phase = |phase: &str| {
        let ready = serde_json::json!({"type": "Ready", "status": "True"});
        let node = seen(&[], ready, spec.clone(), serde_json::json!({"nodeUID": "1", "phase": phase}));
        (node.asks, node.lapsed(600, 10_000), node.under_way(600, 10_000))
    };
    assert_eq!(in_phase("AwaitingGrant"), (true, false, true));
    assert_eq!(in_phase("AwaitingPolicies"), (false, false, true), "it is given no leave, and has not failed");
    assert_eq!(in_phase("Preparing"), (false, true, false));
}

#[test]
fn attempts_say_whether_leave_was_used() {
    let grant = serde_json::json!({"revision": "r", "disruption": "Drain", "expiresAt": time::text(2000)});
    let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(1000), "grant": grant});
    let lapsed = |attempts: u32| {
        let status = serde_json::json!({"nodeUID": "1", "phase": "AwaitingGrant", "attempts": attempts});
        let ready = serde_json::json!({"type": "Ready", "status": "True"});
        seen(&[], ready, spec.clone(), status).lapsed(600, 10_000)
    };
    assert!(!lapsed(0) && lapsed(1));
}

#[test]
fn no_clock_of_a_node_makes_a_soak_shorter() {
    let at = |current: u64, healthy: bool| {
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000)});
        let conditions = serde_json::json!([{"type": "Healthy", "status": "False", "reason": "", "message": "",
            "lastTransitionTime": time::text(current)}]);
        let status = serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(current),
            "healthy": healthy, "conditions": conditions});
        made(&[], spec, status)
    };
    let since = |node: &Node| node.current.as_ref().unwrap().1;
    assert_eq!(since(&at(1000, true)), 4000, "a clock that is behind: not before it was told");
    assert_eq!(since(&at(4100, true)), 4100);
    assert_eq!(since(&at(90_000, true)), 4900, "a clock that is ahead: its time was over then");
    assert_eq!(at(1000, false).unhealthy_since, Some(4000));
    assert_eq!(at(9000, true).unhealthy_since, None);
}

/// Neither may it be another moment at each look: that would hold a soak up until all other clocks are there.
#[test]
fn a_time_that_is_yet_to_come_is_over_when_the_nodes_time_is() {
    let since = |told: u64, leave: Option<u64>, says: u64| {
        let grant =
            leave.map(|at| serde_json::json!({"revision": "r", "disruption": "Drain", "expiresAt": time::text(at)}));
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(told),
            "grant": grant});
        let status = serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(says), "healthy": true});
        made(&[], spec, status).current.unwrap().1
    };
    assert_eq!(since(9900, None, 10_005), 10_005, "it is ahead by seconds");
    assert_eq!(since(9900, None, 90_000), 10_800);
    assert_eq!(since(4000, Some(9500), 90_000), 9500, "it waited for leave");
    assert_eq!(since(4000, Some(9500), 9990), 9990, "it came late, and its clock may be right");
}

#[test]
fn well_is_what_is_ready_and_healthy_without_a_break() {
    let spec =
        serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000)});
    let since = |ready: u64, healthy: u64| {
        let said = |kind, at| serde_json::json!({"type": kind, "status": "True", "reason": "", "message": "", "lastTransitionTime": time::text(at)});
        let status = serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(4100),
            "healthy": true, "conditions": [said("Healthy", healthy)]});
        seen(&[], said("Ready", ready), spec.clone(), status).well_since
    };
    assert_eq!((since(5000, 100), since(100, 6000)), (5000, 6000));
    // A clock that is ahead would hold up the soak until all others are there.
    assert_eq!((since(90_000, 100), since(90_000, 6000), since(100, 90_000)), (4100, 6000, 4100));
}

/// A clock that is behind by hours would have it ill for longer than it had the revision.
#[test]
fn a_node_is_not_ill_of_a_revision_before_it_had_it() {
    let spec =
        serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000)});
    let status =
        serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(4100), "healthy": true});
    let since = |at: u64| {
        let ready = serde_json::json!({"type": "Ready", "status": "False", "lastTransitionTime": time::text(at)});
        seen(&[], ready, spec.clone(), status.clone()).unready_since
    };
    assert_eq!((since(1000), since(5000), since(90_000)), (Some(4100), Some(5000), Some(10_000)));
}

#[test]
fn what_a_node_is_in_the_middle_of_takes_of_the_budget_though_it_cannot_be_parsed() {
    let node = |cordoned: bool| {
        let ready = [serde_json::json!({"type": "Ready", "status": "True"})];
        serde_json::json!({"metadata": {"name": "n"}, "spec": {"unschedulable": cordoned}, "status": {"conditions": ready}})
    };
    let of = |cordoned: bool, expires: u64, current: &str| {
        let mut world = World::default();
        world.nodes.insert("n".to_owned(), Arc::new(serde_json::from_value(node(cordoned)).unwrap()));
        let object = serde_json::json!({"spec": {"grant": {"revision": "r", "disruption": "Drain", "expiresAt": time::text(expires)}},
            "status": {"phase": "Dreaming", "currentRevision": current}});
        let broken = crate::cluster::Broken { name: "n".to_owned(), error: String::new(), object };
        world.broken_runtime_nodes.insert("n".to_owned(), broken);
        away(&world, "n", 1000)
    };
    assert!(of(false, 2000, "old"), "it may be interrupted now");
    assert!(!of(false, 2000, "r"), "it has what it was for");
    assert!(!of(false, 500, "old") && of(true, 500, "old"));
}

#[test]
fn a_cordon_is_ours_if_and_only_if_its_node_says_so() {
    let node = |json: serde_json::Value| cordon(&serde_json::from_value(json).unwrap());
    let annotations = serde_json::json!({CORDONED: time::text(77)});
    assert_eq!(node(serde_json::json!({"metadata": {"annotations": annotations}})), Cordon::None);
    let cordoned = serde_json::json!({"unschedulable": true});
    assert_eq!(node(serde_json::json!({"metadata": {}, "spec": cordoned})), Cordon::Foreign);
    assert_eq!(node(serde_json::json!({"metadata": {"annotations": annotations}, "spec": cordoned})), Cordon::Ours(77));
}

#[test]
fn what_nodes_go_back_to_is_the_good_one_that_most_have_or_had() {
    let node = |current: &str, fallback: Option<&str>| {
        let mut node = RuntimeNode::default();
        node.spec.fallback_revision = fallback.map(str::to_owned);
        node.status = Some(RuntimeNodeStatus { current_revision: Some(current.to_owned()), ..Default::default() });
        node
    };
    let name = |n: &str| Revision(n.to_owned());
    let nodes = [node("new", Some("a")), node("a", None), node("b", Some("a"))];
    let good = BTreeSet::from([name("a"), name("b")]);
    assert_eq!(last_known_good(&name("new"), &good, nodes.iter()), Some(name("a")));
    assert_eq!(last_known_good(&name("a"), &good, nodes.iter()), Some(name("b")), "another one than the target");
    assert_eq!(last_known_good(&name("new"), &BTreeSet::new(), nodes.iter()), None);
}

#[test]
fn leave_that_was_not_used_three_times_is_a_failure_until_a_retry() {
    let of = |revisions: &[crds::RuntimeRevision], desired: &str, times: u32| {
        let unused = serde_json::json!({"revision": "r", "times": times, "at": time::text(4000)});
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": desired, "desiredSince": time::text(3000),
            "unusedLeave": unused});
        let node = made(
            revisions,
            spec,
            serde_json::json!({"nodeUID": "1", "currentRevision": "old", "phase": "AwaitingGrant"}),
        );
        (node.unused, node.failed.map(|failed| failed.0))
    };
    assert_eq!(of(&[], "r", 2), (2, None), "it has another turn");
    assert_eq!(of(&[], "r", UNUSED_LEAVES), (UNUSED_LEAVES, Some("r".to_owned())));
    assert_eq!(of(&[], "old", UNUSED_LEAVES), (0, Some("r".to_owned())), "it is told of it no more");
    let retried = |at: u64| [revision("r", serde_json::json!({"retriedAt": time::text(at)}))];
    assert_eq!(of(&retried(3000), "r", 2), (2, None));
    assert_eq!(of(&retried(4000), "r", UNUSED_LEAVES), (0, None));
}
