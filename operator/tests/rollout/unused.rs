//! Leave that ends before anything was begun under it.
use crate::fleet::{Fleet, node, revision, strategy};
use berth_operator::rollout::{
    Action, AgentState, Cordon, Disruption, Grant, Node, OnFailure, Share, Stage, UNUSED_LEAVES, Why, plan,
};

/// What agents say meanwhile: node-runtime/crates/agent/src/run/tests/place.rs.
#[test]
fn leave_that_was_not_used_is_nobodys_failure() {
    for disruption in [Disruption::DaemonRestart, Disruption::Drain] {
        let mut fleet = Fleet::new((0..20).map(|n| node(n, 3, disruption)).collect(), strategy());
        fleet.busy_until = fleet.now + 4 * fleet.rollout.strategy.node_timeout;
        while fleet.now < fleet.busy_until {
            fleet.tick();
        }
        let log = fleet.log.join("\n");
        assert!(log.contains("LeaveUnused { times: 2 }") && fleet.rollout.bad.is_empty(), "{disruption:?} {log}");
        assert!(matches!(fleet.stage, Stage::Wave { index: 0, .. }), "{disruption:?} {:?}", fleet.stage);
        fleet.run_until(3000, |s| *s == Stage::Complete);
        assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (20, 0), "{disruption:?} {}", fleet.log.join("\n"));
        fleet.run_until(3, |_| true);
        assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None), "{disruption:?} {}", fleet.log.join("\n"));
    }
}

/// The first node to be given leave three times stands for the others, as one that gives up does.
#[test]
fn leave_that_is_never_used_is_a_failure_after_three_times() {
    for (disruption, on_failure, stage) in [
        (Disruption::DaemonRestart, OnFailure::Rollback, Stage::RolledBack),
        (Disruption::Drain, OnFailure::Rollback, Stage::RolledBack),
        (Disruption::Drain, OnFailure::Halt, Stage::Halted),
    ] {
        let mut fleet = Fleet::new((0..20).map(|n| node(n, 3, disruption)).collect(), strategy());
        (fleet.busy_until, fleet.rollout.strategy.on_failure) = (u64::MAX, on_failure);
        fleet.run_until(1000, |s| *s == stage);
        let log = fleet.log.join("\n");
        let failed: Vec<_> = fleet.nodes.iter().filter(|n| n.failed == Some(revision("new"))).collect();
        assert_eq!((failed.len(), fleet.have("old")), (1, 20), "{log}");
        assert!(failed.iter().all(|n| n.unused == UNUSED_LEAVES && n.grant.is_none()), "{failed:?}");
        assert!(fleet.nodes.iter().all(|n| n.unused <= UNUSED_LEAVES), "{log}");
        fleet.touch(|_| ());
        fleet.run_until(5, |s| *s == stage);
        assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None), "{disruption:?} {}", fleet.log.join("\n"));
    }
}

/// One of 40, in a wave of many: within what may fail, and the others have it.
#[test]
fn one_agent_that_never_begins_holds_up_no_others() {
    let mut fleet = Fleet::new((0..40).map(|n| node(n, 1, Disruption::Drain)).collect(), strategy());
    fleet.rollout.strategy.failures = Share::Nodes(1);
    fleet.never_begin.insert("n010".to_owned());
    fleet.run_until(20_000, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (39, 0));
    let failed = fleet.node("n010").failed.clone();
    assert_eq!(failed, Some(revision("new")), "{}", fleet.log.join("\n"));
}

/// A node with leave until 2000, whose agent asked when it was last heard of.
fn asking() -> Node {
    let mut node = node(0, 1, Disruption::Drain);
    node.desired = Some((revision("new"), 1000));
    node.grant = Some(Grant { revision: revision("new"), disruption: Disruption::Drain, expires: 2000 });
    node.asks = true;
    node
}

#[test]
fn what_was_begun_ends_with_its_leave_and_what_is_not_told_yet_a_little_later() {
    let lapsed = |asks: bool, begun: bool, at: u64| {
        let node = Node { asks, begun, ..asking() };
        node.lapsed(600, at)
    };
    for (asks, begun, ends) in [(false, true, 2000), (true, true, 2000), (false, false, 2030)] {
        assert!(!lapsed(asks, begun, ends - 1) && lapsed(asks, begun, ends), "asks: {asks}, begun: {begun}");
    }
    assert!(!lapsed(true, false, u64::MAX), "it says that nothing was begun");
}

/// It begins, cannot say so any more, and dies of what it began.
#[test]
fn an_agent_that_is_gone_excuses_nothing() {
    let gone: [fn(&mut Node); 2] = [|n| n.unready_since = Some(1500), |n| n.agent = AgentState::Crashes];
    for (at, change) in gone.into_iter().enumerate() {
        let mut nodes = vec![asking(), node(1, 1, Disruption::Drain)];
        let fleet = Fleet::new(nodes.clone(), strategy());
        let put_off = |a: &Action| matches!(a, Action::Postpone { why: Why::LeaveUnused { times: 1 }, .. });
        assert!(plan(&fleet.rollout, &nodes, 2030).actions.iter().any(put_off), "{at}: it is there");
        change(&mut nodes[0]);
        assert!(nodes[0].lapsed(900, 2030), "{at}");
        let plan = plan(&fleet.rollout, &nodes, 2030);
        assert!(plan.actions.contains(&Action::MarkBad(revision("new"))), "{at}: {plan:?}");
    }
}
