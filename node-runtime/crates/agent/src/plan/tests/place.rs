//! Nodes that have asked for leave, and cannot say it again just now.
use super::*;
use crate::journal::Asked;

/// A node that has asked for leave under that order.
fn queues(phase: AdoptPhase, current: Option<&str>) -> Node {
    let mut node = Node::new(phase, current);
    let message = "new needs leave for Drain".to_owned();
    node.journal.asked =
        Some(Asked { revision: "new".to_owned(), order: String::new(), disruption: Some(Disruption::Drain), message });
    node
}

fn told(node: &Node) -> (Phase, String) {
    let plan = node.plan();
    (plan.phase, plan.message.unwrap_or_default())
}

#[test]
fn a_node_keeps_its_place_until_a_check_says_something_else() {
    let mut node = queues(AdoptPhase::NotAdopted, None);
    let asks = node.plan();
    assert_eq!((asks.step, asks.phase), (Step::Check("new".to_owned()), Phase::AwaitingGrant));
    assert_eq!(asks.message.as_deref(), Some("new needs leave for Drain"));
    node.wish.desired_since = Some("later".to_owned());
    assert_eq!(told(&node), (Phase::Preparing, String::new()), "another order is another question");
    node.wish.desired_since = None;
    node.checked(Err("--config: is a directory".to_owned()));
    let refused = node.plan();
    assert!(matches!(refused.step, Step::GiveUp { .. }) && refused.phase == Phase::RollingBack);
    node.known.checks.clear();
    node.unfit("");
    assert_eq!(node.plan().phase, Phase::AwaitingPolicies);
}

#[test]
fn whatever_does_not_answer_costs_no_place() {
    let asks = Phase::AwaitingGrant;
    let mut node = queues(AdoptPhase::NotAdopted, None);
    node.known.contents.clear();
    assert_eq!((node.plan().step, node.plan().phase), (Step::Fetch("new".to_owned()), asks));
    node.known.away.insert("new".to_owned(), "429".to_owned());
    assert_eq!(told(&node), (asks, "new needs leave for Drain; 429".to_owned()));
    node.facts.adoption.phase = AdoptPhase::Unknown;
    assert_eq!(told(&node), (asks, "new needs leave for Drain; berth adopt does not answer".to_owned()));

    let mut node = queues(AdoptPhase::Adopted, Some("old"));
    node.facts.daemon = None;
    assert_eq!(told(&node), (asks, "new needs leave for Drain; the daemon does not answer".to_owned()));
    node.journal.commit("new", 1000);
    assert_eq!(node.plan().phase, Phase::Verifying, "it waits for no leave any more");
}

#[test]
fn policies_that_change_meanwhile_cost_no_place() {
    let mut node = queues(AdoptPhase::Adopted, Some("old"));
    node.wish.policy_revision = Some("policies".to_owned());
    assert_eq!((node.plan().step, node.plan().phase), (Step::Fetch("policies".to_owned()), Phase::AwaitingGrant));
    node.known.contents.insert("policies".to_owned(), Content::Policies("{}".to_owned()));
    let applies = node.plan();
    assert_eq!((applies.step, applies.phase), (Step::ApplyPolicies("policies".to_owned()), Phase::AwaitingGrant));
    node.journal.asked = None;
    assert_eq!(node.plan().phase, Phase::Applying);
}

#[test]
fn what_begins_or_ends_asks_for_nothing_any_more() {
    let ends: [fn(&mut Journal); 3] = [
        |journal| journal.begin("new", "", Begun::Apply, 1000),
        |journal| journal.commit("new", 1000),
        |journal| journal.give_up(Failure { revision: "new".to_owned(), ..Failure::default() }, false),
    ];
    for end in ends {
        let mut node = queues(AdoptPhase::NotAdopted, None);
        end(&mut node.journal);
        assert_eq!(node.journal.asked, None, "{:?}", node.journal);
    }
}
