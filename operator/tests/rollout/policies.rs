//! Image policies without which no agent takes its node over: an edit of them is nobody's failure, however long it lasts.
use crate::fleet::{Fleet, TICK, node, revision, strategy};
use berth_operator::rollout::{AgentState, Cordon, Disruption, Stage};

fn fleet() -> Fleet {
    Fleet::new((0..20).map(|n| node(n, 3, Disruption::Drain)).collect(), strategy())
}

/// Runs until just before the policies are there, for several times what a node may take.
fn wait(fleet: &mut Fleet) {
    let until = fleet.now + 5 * fleet.rollout.strategy.node_timeout;
    fleet.policies_from = until;
    while fleet.now + TICK < until {
        fleet.tick();
        let waits = fleet.nodes.iter().filter(|n| n.lacks_policies);
        assert!(waits.into_iter().all(|n| n.grant.as_ref().is_none_or(|g| g.expires < until)), "{:#?}", fleet.log);
    }
}

fn comes_through(mut fleet: Fleet) {
    assert!(fleet.rollout.bad.is_empty(), "{}", fleet.log.join("\n"));
    assert!(matches!(fleet.stage, Stage::Wave { index: 0, .. }), "{:?}", fleet.stage);
    assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None), "nobody's pods are kept away meanwhile");
    fleet.run_until(3000, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (20, 0), "{}", fleet.log.join("\n"));
}

#[test]
fn a_node_that_waits_for_policies_is_given_no_leave_and_has_not_failed() {
    let mut fleet = fleet();
    wait(&mut fleet);
    assert!(fleet.nodes.iter().all(|n| n.grant.is_none()) && fleet.ever_told_target.len() == 1);
    comes_through(fleet);
}

#[test]
fn policies_that_are_edited_while_a_node_is_drained_take_nothing_back() {
    let mut fleet = fleet();
    fleet.stuck_until = fleet.nodes.iter().map(|n| (n.name.clone(), 1200)).collect();
    while fleet.nodes.iter().all(|n| n.cordon == Cordon::None) {
        fleet.tick();
    }
    wait(&mut fleet);
    comes_through(fleet);
}

#[test]
fn leave_that_ends_while_its_agent_waits_for_policies_is_nobodys_failure() {
    let mut fleet = fleet();
    while fleet.nodes.iter().all(|n| n.grant.is_none()) {
        fleet.tick();
    }
    wait(&mut fleet);
    comes_through(fleet);
}

/// Of what does not answer any more nobody knows whether it still waits: it makes way.
#[test]
fn a_node_that_is_away_is_not_waited_for() {
    for agent in [AgentState::Crashes, AgentState::Runs] {
        let mut fleet = fleet();
        fleet.policies_from = u64::MAX;
        while fleet.nodes.iter().all(|n| !n.lacks_policies) {
            fleet.tick();
        }
        let (now, name) = (fleet.now, fleet.nodes.iter().find(|n| n.lacks_policies).unwrap().name.clone());
        fleet.touch(|fleet| {
            let node = fleet.node(&name);
            (node.agent, node.unready_since) = (agent, (agent == AgentState::Runs).then_some(now));
        });
        // One that is not Ready for a moment only has a kubelet that starts anew.
        while fleet.now < now + 70 {
            fleet.tick();
        }
        assert!(!fleet.node(&name).wants(&revision("new")), "{agent:?} {}", fleet.log.join("\n"));
    }
}
