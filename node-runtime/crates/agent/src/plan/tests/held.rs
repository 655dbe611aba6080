//! A node that somebody asks to leave alone: nothing begins, and what has begun does not stop half-way.
use super::*;

fn held(node: &Node) -> bool {
    let plan = node.plan();
    plan.step == Step::Rest && plan.message.is_some_and(|message| message.starts_with("held"))
}

#[test]
fn nothing_begins_whatever_leave_there_is() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.checked(Ok(Disruption::DaemonRestart));
    node.granted(Disruption::DaemonRestart);
    assert_eq!(node.plan().step, Step::Apply("new".to_owned()));
    node.wish.hold = true;
    assert!(held(&node));
    // Of a former order, and nothing of it is in force.
    node.journal.begin("other", "before", Begun::Apply, 1000);
    assert!(held(&node));
}

#[test]
fn what_has_begun_is_finished() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.checked(Ok(Disruption::DaemonRestart));
    node.journal.begin("new", "", Begun::Apply, 1000);
    node.wish.hold = true;
    if let Some(daemon) = &mut node.facts.daemon {
        (daemon.configuration, daemon.pending) = (Some("new".to_owned()), vec!["spec.network.mode".to_owned()]);
    }
    assert!(matches!(node.plan().step, Step::Restart { .. }), "also when the leave has ended");
    node.journal.begin("new", "", Begun::Restart, 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.pending.clear();
    }
    assert_eq!(node.plan().step, Step::Commit("new".to_owned()));
    node.journal.commit("new", 1100);
    assert!(held(&node));
}

/// The order came to be another one in the moment in which the former one was begun.
#[test]
fn what_was_begun_for_a_former_order_is_undone() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.journal.begin("new", "before", Begun::Apply, 1000);
    (node.wish.hold, node.wish.desired_revision) = (true, Some("old".to_owned()));
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("new".to_owned());
    }
    let circumstances = Circumstances::of(&node.facts, None);
    node.known.checks.insert(("old".to_owned(), circumstances), Answer::Fits(Disruption::Live));
    assert_eq!(node.plan().step, Step::Apply("old".to_owned()));
}

#[test]
fn a_node_goes_back_all_the_way_and_rests_then() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.wish.hold = true;
    node.journal.begin("new", "", Begun::Restart, 1000);
    let failure = Failure { revision: "new".to_owned(), at: 1100, ..Failure::default() };
    node.journal.give_up(failure.clone(), false);
    assert!(held(&node), "it has what it had: nothing came of it");
    node.facts.daemon = None;
    assert!(matches!(node.plan().step, Step::Restart { .. }), "the version does not come up");
    node.journal.begin("old", "", Begun::Restart, 1100);
    node.facts.daemon =
        Some(Daemon { version: "0.1.0".to_owned(), configuration: Some("old".to_owned()), ..Daemon::default() });
    assert_eq!(node.plan().step, Step::Commit("old".to_owned()));
    node.journal.commit("old", 1200);
    assert!(held(&node));
    node.facts.daemon = None;
    assert!(held(&node), "somebody works on it");
}
