//! Nodes that somebody asks to leave alone at any moment. What agents do then: node-runtime/crates/agent/src/plan/tests/held.rs.
use crate::fleet::{Agent, Fleet, node, revision, strategy};
use berth_operator::rollout::{Action, AgentState, Cordon, Disruption, Grant, Node, Stage, plan};

/// A rollout whose canary was told a moment ago; its name.
fn told(disruption: Disruption) -> (Fleet, String) {
    let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, disruption)).collect(), strategy());
    while fleet.ever_told_target.is_empty() {
        fleet.tick();
    }
    let canary = fleet.ever_told_target.first().unwrap().clone();
    (fleet, canary)
}

fn comes_through(mut fleet: Fleet, held: &str) {
    let end = fleet.now + 3 * fleet.rollout.strategy.node_timeout;
    while fleet.now < end {
        fleet.tick();
    }
    let log = fleet.log.join("\n");
    assert!(fleet.rollout.bad.is_empty() && fleet.node(held).has(&revision("old")), "{log}");
    assert!(fleet.node(held).settled() && fleet.node(held).cordon == Cordon::None, "{log}");
    fleet.touch(|f| f.node(held).hold = false);
    fleet.run_until(3000, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (10, 0), "{}", fleet.log.join("\n"));
}

#[test]
fn a_node_that_was_told_and_has_begun_nothing_is_told_what_it_has() {
    for disruption in [Disruption::None, Disruption::NewPods, Disruption::DaemonRestart, Disruption::Drain] {
        let (mut fleet, canary) = told(disruption);
        fleet.touch(|f| f.node(&canary).hold = true);
        fleet.tick();
        assert!(fleet.node(&canary).settled(), "{disruption:?} {}", fleet.log.join("\n"));
        comes_through(fleet, &canary);
    }
}

#[test]
fn leave_that_a_held_node_does_not_use_is_nobodys_failure() {
    for disruption in [Disruption::DaemonRestart, Disruption::Drain] {
        let (mut fleet, canary) = told(disruption);
        while fleet.node(&canary).grant.is_none() {
            fleet.tick();
        }
        fleet.touch(|f| f.node(&canary).hold = true);
        comes_through(fleet, &canary);
    }
}

#[test]
fn what_has_begun_without_leave_is_left_to_it() {
    let (mut fleet, canary) = told(Disruption::None);
    fleet.agents.insert(canary.clone(), Agent::Good(300));
    while !fleet.node(&canary).begun {
        fleet.tick();
    }
    fleet.touch(|f| f.node(&canary).hold = true);
    (0..40).for_each(|_| fleet.tick());
    assert!(fleet.node(&canary).has(&revision("new")), "{}", fleet.log.join("\n"));
}

/// It may have begun, and died of it before it could say so.
#[test]
fn a_hold_excuses_no_node_that_is_gone() {
    let gone: [fn(&mut Node); 3] = [|_| (), |n| n.unready_since = Some(1500), |n| n.agent = AgentState::Crashes];
    for (at, change) in gone.into_iter().enumerate() {
        let mut nodes = vec![node(0, 1, Disruption::Drain), node(1, 1, Disruption::Drain)];
        let grant = Grant { revision: revision("new"), disruption: Disruption::Drain, expires: 2000 };
        (nodes[0].desired, nodes[0].grant, nodes[0].hold) = (Some((revision("new"), 1000)), Some(grant), true);
        change(&mut nodes[0]);
        let fleet = Fleet::new(nodes.clone(), strategy());
        let plan = plan(&fleet.rollout, &nodes, 2030);
        assert_eq!(plan.actions.contains(&Action::MarkBad(revision("new"))), at > 0, "{at}: {plan:?}");
    }
}
