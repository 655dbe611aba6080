//! An agent that is restarted while its node queues for leave, and can have no answer at first.
use super::leave::{foreign, with_leave};
use super::*;

const WHY: &str = "another operation is under way";

/// What the next agent says, where the node cannot say what it could have.
async fn next(case: &Case, object: &RuntimeNode) -> Vec<RuntimeNodeStatus> {
    case.side.with(|world| (world.busy, world.statuses) = (Some(WHY), Vec::new()));
    let agent = &mut case.agent_at(0);
    agent.pass(object.clone()).await;
    case.side.with(|world| {
        world.busy = None;
        world.statuses.clone()
    })
}

/// A node whose agent has asked for leave and ended.
async fn queues() -> (Case, String, RuntimeNode) {
    let (case, name) = foreign();
    let mut object = object(&name);
    object.spec.node_uid = "1".to_owned();
    case.agent_at(0).pass(object.clone()).await;
    assert_eq!(case.last().phase, Phase::AwaitingGrant);
    (case, name, object)
}

#[tokio::test]
async fn a_restart_of_the_agent_costs_a_node_no_place() {
    let (case, name, mut object) = queues().await;
    for _ in 0..2 {
        let told = next(&case, &object).await;
        assert!(!told.is_empty() && told.iter().all(|s| s.phase == Phase::AwaitingGrant), "{told:?}");
        assert_eq!(told[0].message, Some(format!("{name} needs leave for Drain; {WHY}")));
    }
    object.spec.desired_since = Some("2026-01-01T00:00:00Z".to_owned());
    assert_eq!(next(&case, &object).await[0].phase, Phase::Preparing, "of another order nothing is known");
    let (case, _, mut object) = queues().await;
    object.spec.node_uid = "2".to_owned();
    object.metadata.uid = Some("2".to_owned());
    assert_eq!(next(&case, &object).await[0].phase, Phase::Preparing, "of another node neither");
}

/// What the operator makes of it: `leave_that_was_not_used_is_nobodys_failure` (operator/tests/rollout/unused.rs).
#[tokio::test]
async fn leave_that_comes_while_nothing_can_be_said_is_not_used_and_nothing_has_failed() {
    let (case, name, _) = queues().await;
    let of_it = |mut object: RuntimeNode| {
        object.spec.node_uid = "1".to_owned();
        object
    };
    let told = next(&case, &of_it(with_leave(&name, Disruption::Drain))).await;
    let said: Vec<_> = told.iter().map(|s| (s.phase, s.attempts, s.failed.clone())).collect();
    assert_eq!(said, [(Phase::AwaitingGrant, 0, None)]);
    let mut agent = case.agent_at(0);
    agent.pass(of_it(with_leave(&name, Disruption::Drain))).await;
    assert_eq!(
        agent.journal.current.as_ref().map(|held| held.revision.clone()),
        Some(name),
        "it is used once it can be"
    );
}

#[tokio::test]
async fn a_node_that_was_refused_since_does_not_ask_again() {
    let (case, name, object) = queues().await;
    case.side.with(|world| world.cannot = Some(Trouble::Refused("--config: is a directory".to_owned())));
    case.agent_at(0).pass(object.clone()).await;
    assert_eq!(case.last().failed.map(|failed| failed.revision), Some(name));
    let told = next(&case, &object).await;
    assert!(told.iter().all(|status| status.phase != Phase::AwaitingGrant), "{told:?}");
}

#[tokio::test]
async fn a_node_whose_policies_do_not_fit_any_more_does_not_ask_again() {
    let (case, _, mut object) = queues().await;
    let policies = RuntimeRevisionSpec::of_policies([]);
    object.spec.policy_revision = Some(policies.name());
    case.side.with(|world| {
        world.revisions.insert(policies.name(), policies);
        world.refuses = Some("a//b");
    });
    case.agent_at(0).pass(object.clone()).await;
    assert_eq!(case.last().phase, Phase::AwaitingPolicies);
    let told = next(&case, &object).await;
    assert!(!told.is_empty() && told.iter().all(|status| status.phase != Phase::AwaitingGrant), "{told:?}");
}
