//! Nodes that die before anything has begun on them.
use crate::fleet::{Agent, Fleet, node, revision, strategy};
use berth_operator::rollout::{AgentState, Cordon, Disruption, Pods, Stage};

/// Power is lost at that moment: neither kubelet nor agent says anything any more, and pods that were told to go are not waited for.
fn dies(fleet: &mut Fleet, name: &str) {
    let now = fleet.now;
    fleet.agents.insert(name.to_owned(), Agent::Absent);
    fleet.touch(|f| {
        let node = f.node(name);
        (node.unready_since, node.pods) = (Some(now), Pods::Gone);
    });
}

fn others_come_through(mut fleet: Fleet, dead: &str) {
    let end = fleet.now + 3 * fleet.rollout.strategy.node_timeout;
    while fleet.now < end {
        fleet.tick();
    }
    let log = fleet.log.join("\n");
    assert!(fleet.rollout.bad.is_empty() && fleet.node(dead).grant.is_none(), "{log}");
    fleet.run_until(3000, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (9, 0), "{}", fleet.log.join("\n"));
    fleet.agents.clear();
    fleet.touch(|f| f.node(dead).unready_since = None);
    fleet.run_until(3000, |s| *s == Stage::Complete);
    fleet.run_until(3, |_| true);
    assert_eq!(fleet.have("new"), 10);
    assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None), "{}", fleet.log.join("\n"));
}

#[test]
fn a_canary_that_dies_while_it_is_drained_says_nothing_of_the_revision() {
    let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, Disruption::Drain)).collect(), strategy());
    fleet.stuck_until = fleet.nodes.iter().map(|n| (n.name.clone(), fleet.now + 600)).collect();
    while fleet.nodes.iter().all(|n| n.cordon == Cordon::None) {
        fleet.tick();
    }
    let canary = fleet.ever_told_target.first().unwrap().clone();
    dies(&mut fleet, &canary);
    others_come_through(fleet, &canary);
}

/// Its kubelet was started anew.
#[test]
fn a_node_that_is_not_ready_for_a_moment_keeps_its_turn() {
    let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, Disruption::Drain)).collect(), strategy());
    fleet.stuck_until = fleet.nodes.iter().map(|n| (n.name.clone(), fleet.now + 60)).collect();
    while fleet.nodes.iter().all(|n| n.cordon == Cordon::None) {
        fleet.tick();
    }
    let (canary, now) = (fleet.ever_told_target.first().unwrap().clone(), fleet.now);
    fleet.touch(|f| f.node(&canary).unready_since = Some(now));
    while fleet.now < now + 40 {
        fleet.tick();
    }
    assert!(fleet.node(&canary).grant.is_none() && fleet.node(&canary).postponed_until == 0);
    fleet.touch(|f| f.node(&canary).unready_since = None);
    fleet.run_until(3000, |s| *s == Stage::Complete);
    assert!(fleet.nodes.iter().all(|n| n.postponed_until == 0), "{}", fleet.log.join("\n"));
}

#[test]
fn nor_does_one_that_dies_before_it_has_asked() {
    for nobody_looks in [false, true] {
        let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, Disruption::DaemonRestart)).collect(), strategy());
        while fleet.ever_told_target.is_empty() {
            fleet.tick();
        }
        let canary = fleet.ever_told_target.first().unwrap().clone();
        dies(&mut fleet, &canary);
        if nobody_looks {
            fleet.now += 2 * fleet.rollout.strategy.node_timeout;
        }
        others_come_through(fleet, &canary);
    }
}

/// It was begun without leave: it may be what the node died of.
#[test]
fn one_that_dies_of_what_needs_no_leave_has_failed() {
    let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, Disruption::NewPods)).collect(), strategy());
    while fleet.ever_told_target.is_empty() {
        fleet.tick();
    }
    let canary = fleet.ever_told_target.first().unwrap().clone();
    dies(&mut fleet, &canary);
    fleet.run_until(500, |s| *s == Stage::RolledBack);
    assert!(fleet.rollout.bad.contains(&revision("new")));
}

/// Whatever ended its agent, it runs again, and nothing had begun.
#[test]
fn a_node_whose_agent_is_back_has_its_turn_soon() {
    let mut fleet = Fleet::new(vec![node(0, 3, Disruption::Drain)], strategy());
    fleet.stuck_until = fleet.nodes.iter().map(|n| (n.name.clone(), fleet.now + 60)).collect();
    while fleet.nodes.iter().all(|n| n.cordon == Cordon::None) {
        fleet.tick();
    }
    let (name, now) = (fleet.nodes[0].name.clone(), fleet.now);
    fleet.touch(|f| f.node(&name).agent = AgentState::Crashes);
    while fleet.node(&name).postponed_until <= now {
        fleet.tick();
    }
    let until = fleet.node(&name).postponed_until;
    assert!(until <= fleet.now + 120 && until < now + fleet.rollout.strategy.drain_backoff, "{now} {until}");
    fleet.touch(|f| f.node(&name).agent = AgentState::Runs);
    fleet.run_until(600, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 1, "{}", fleet.log.join("\n"));
}
