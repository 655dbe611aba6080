//! A node that runs a part of the control plane, where nobody asked for such nodes.
use super::*;

/// What the operator reads of it: `a_node_of_the_control_plane_that_nobody_asked_for_is_as_one_that_is_not_told`
/// (operator/src/controllers/rollout/build/tests.rs).
#[tokio::test]
async fn a_node_of_the_control_plane_that_nobody_asked_for_says_so_and_is_left_alone() {
    let refusal = || Some(Trouble::NotAskedFor("static pod etcd: is it".to_owned()));
    for at_last in [false, true] {
        let case = Case::new();
        let (wanted, fallback) = (case.revision(60), case.revision(50));
        case.side.with(|world| {
            world.facts.adoption.phase = AdoptPhase::NotAdopted;
            world.facts.daemon = None;
            *(if at_last { &mut world.at_last } else { &mut world.cannot }) = refusal();
        });
        let mut agent = case.agent();
        agent.clock.hear("Thu, 01 Jan 2026 00:00:00 GMT");
        let mut object = granted(&wanted, "");
        (object.spec.policy_revision, object.spec.fallback_revision) = (None, Some(fallback));
        agent.pass(object.clone()).await;
        let last = case.last();
        let failed = last.failed.unwrap();
        assert_eq!((failed.revision, failed.reason.as_str()), (wanted.clone(), "ControlPlane"), "{at_last}");
        assert_eq!((last.phase, last.attempts, last.current_revision), (Phase::Idle, 0, None), "{at_last}");
        case.side.with(|world| world.cannot = None);
        agent.pass(object.clone()).await;
        assert!(case.done().is_empty(), "nor is it taken over with what it could go back to");
        object.spec.desired_since = Some("2026-01-01T00:00:01Z".to_owned());
        agent.pass(object).await;
        assert!(case.done().iter().any(|done| done.starts_with("adopt with")), "another order is tried");
    }
}
