//! A version of the runtime that agents have not put on their nodes yet, in this order or that: it is no revision's fault.
use crate::fleet::{Agent, Fleet, node, revision, strategy};
use berth_operator::rollout::{Disruption, Stage};
use std::collections::BTreeSet;

fn fleet() -> Fleet {
    Fleet::new((0..20).map(|n| node(n, 3, Disruption::DaemonRestart)).collect(), strategy())
}

fn wait(fleet: &mut Fleet) {
    let end = fleet.now + 5 * fleet.rollout.strategy.node_timeout;
    while fleet.now < end {
        fleet.tick();
    }
}

/// A DaemonSet that is updated only where somebody deletes a pod.
#[test]
fn nodes_without_the_version_are_told_once_it_is_there() {
    let mut fleet = fleet();
    let lacks = BTreeSet::from([revision("new")]);
    fleet.nodes.iter_mut().for_each(|n| n.unstaged = lacks.clone());
    wait(&mut fleet);
    assert_eq!((fleet.ever_told_target.len(), fleet.rollout.bad.len()), (0, 0), "{}", fleet.log.join("\n"));
    // Not the first one in their order: that one's disk is full.
    fleet.touch(|f| f.nodes.iter_mut().skip(1).for_each(|n| n.unstaged.clear()));
    fleet.run_until(3000, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (19, 0));
    fleet.touch(|f| f.nodes[0].unstaged.clear());
    fleet.run_until(50, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 20);
}

/// Its agent is replaced by an older one after it was told, and waits for what nobody brings.
#[test]
fn a_node_that_lacks_the_version_it_was_told_is_told_what_it_has() {
    for nobody_looks in [false, true] {
        let mut fleet = fleet();
        fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), Agent::Absent)).collect();
        while fleet.ever_told_target.is_empty() {
            fleet.tick();
        }
        let first = fleet.ever_told_target.first().unwrap().clone();
        if nobody_looks {
            fleet.now += 2 * fleet.rollout.strategy.node_timeout;
        }
        fleet.touch(|f| f.nodes.iter_mut().for_each(|n| n.unstaged = BTreeSet::from([revision("new")])));
        wait(&mut fleet);
        assert!(fleet.rollout.bad.is_empty() && fleet.node(&first).settled(), "{}", fleet.log.join("\n"));
        fleet.agents.clear();
        fleet.touch(|f| f.nodes.iter_mut().for_each(|n| n.unstaged.clear()));
        fleet.run_until(3000, |s| *s == Stage::Complete);
        assert_eq!(fleet.have("new"), 20);
    }
}
