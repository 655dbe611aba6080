//! Targets that came through before: whom that says something of, and whom it does not. And nodes that are well only now and then.
use crate::fleet::{Agent, Fleet, node, revision, strategy};
use berth_operator::rollout::{Disruption, OnFailure, Stage};

/// A target that came through on the first so many, and others that have `old`, or nothing.
fn grown(proven: usize, others: usize, disruption: Disruption, old: bool) -> Fleet {
    let mut nodes: Vec<_> = (0..proven + others).map(|n| node(n, 3, disruption)).collect();
    for (n, node) in nodes.iter_mut().enumerate() {
        if n < proven {
            (node.desired, node.current) = (Some((revision("new"), 100)), Some((revision("new"), 130)));
        } else if !old {
            (node.desired, node.current) = (None, None);
        }
    }
    let mut fleet = Fleet::new(nodes, strategy());
    fleet.rollout.came_through = Some(500);
    if !old {
        fleet.rollout.last_known_good = None;
    }
    fleet
}

#[test]
fn what_came_through_on_one_node_goes_to_twenty_others_in_waves() {
    for disruption in [Disruption::None, Disruption::Drain] {
        for (old, stage) in [(false, Stage::NothingToGoBackTo), (true, Stage::RolledBack)] {
            let mut fleet = grown(1, 20, disruption, old);
            fleet.agents = fleet.nodes.iter().skip(1).map(|n| (n.name.clone(), Agent::GivesUp(20))).collect();
            fleet.run_until(1000, |s| *s == stage);
            assert_eq!(fleet.ever_told_target.len(), 1, "{disruption:?} {old}: {}", fleet.log.join("\n"));
        }
        let mut fleet = grown(1, 20, disruption, false);
        fleet.run_until(3000, |s| *s == Stage::Complete);
        assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (21, 0));
    }
}

#[test]
fn halt_holds_for_what_came_through_on_one_node() {
    let mut fleet = grown(1, 20, Disruption::Drain, false);
    fleet.rollout.strategy.on_failure = OnFailure::Halt;
    fleet.agents = fleet.nodes.iter().skip(1).map(|n| (n.name.clone(), Agent::GivesUp(20))).collect();
    fleet.run_until(1000, |s| *s == Stage::Halted);
    (0..500).for_each(|_| fleet.tick());
    assert_eq!(fleet.ever_told_target.len(), 1);
}

/// From one to another, and back to the first: that one came through, but before the other.
#[test]
fn what_all_had_before_goes_in_waves_again() {
    let mut fleet = Fleet::new((0..40).map(|n| node(n, 3, Disruption::DaemonRestart)).collect(), strategy());
    fleet.run_until(3000, |s| *s == Stage::Complete);
    let back = |f: &mut Fleet| {
        f.rollout.target = revision("old");
        (f.rollout.last_known_good, f.rollout.came_through) = (Some(revision("new")), Some(500));
        f.ever_told_target.clear();
    };
    fleet.touch(back);
    fleet.run_until(30, |s| matches!(s, Stage::Wave { index: 0, soak_until: Some(_), .. }));
    assert_eq!((fleet.ever_told_target.len(), fleet.have("old")), (1, 1), "a canary");
    // Most have it: those that are left are protected all the same, and so is the way back.
    while fleet.have("old") < 25 {
        fleet.tick();
    }
    let left: Vec<_> = fleet.nodes.iter().filter(|n| !n.wants(&revision("old"))).map(|n| n.name.clone()).collect();
    fleet.agents = left.iter().map(|n| (n.clone(), Agent::GivesUp(20))).collect();
    fleet.run_until(3000, |s| *s == Stage::RolledBack);
    assert_eq!(fleet.have("new"), 40);
}

#[test]
fn single_nodes_that_join_what_is_through_wait_for_no_wave() {
    let mut fleet = grown(10, 2, Disruption::DaemonRestart, false);
    fleet.run_until(20, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 12);
}

/// They had it for weeks; others that come now are no reason to judge it by them.
#[test]
fn an_old_node_that_is_ill_takes_nothing_from_a_pool_that_grows() {
    let mut fleet = grown(7, 8, Disruption::DaemonRestart, false);
    fleet.node("n000").unready_since = Some(10);
    fleet.node("n001").unhealthy_since = Some(10);
    fleet.run_until(2000, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (15, 0));
}

/// A pool that grows node by node is through once more when the new ones are: the next one waits for no wave either.
#[test]
fn what_comes_through_again_is_through() {
    let mut fleet = grown(2, 3, Disruption::DaemonRestart, false);
    fleet.run_until(2000, |s| *s == Stage::Complete);
    let again = fleet.rollout.came_through;
    assert!(again > Some(500), "{again:?}");
    fleet.touch(|f| {
        let mut new = node(99, 1, Disruption::DaemonRestart);
        (new.desired, new.current) = (None, None);
        f.nodes.push(new);
    });
    fleet.run_until(20, |s| *s == Stage::Complete);
    assert_eq!((fleet.have("new"), fleet.rollout.came_through), (6, again), "it has not been well for long");
}

/// Ready for eight minutes, away for two, for hours: it never was well for the ten minutes that a canary soaks.
#[test]
fn a_canary_that_flaps_lets_nobody_follow() {
    type Turn = fn(&mut berth_operator::rollout::Node, Option<u64>, u64);
    let turns: [Turn; 2] = [
        |node, ill, now| (node.unready_since, node.well_since) = (ill, now),
        |node, ill, now| (node.unhealthy_since, node.well_since) = (ill, now),
    ];
    for turn in turns {
        let mut fleet = Fleet::new((0..20).map(|n| node(n, 3, Disruption::DaemonRestart)).collect(), strategy());
        fleet.run_until(20, |s| matches!(s, Stage::Wave { index: 0, soak_until: Some(_), .. }));
        let canary = fleet.ever_told_target.first().unwrap().clone();
        for _ in 0..20 {
            let now = fleet.now;
            fleet.touch(|f| turn(f.node(&canary), Some(now), 0));
            (0..12).for_each(|_| fleet.tick());
            let now = fleet.now;
            fleet.touch(|f| turn(f.node(&canary), None, now));
            (0..48).for_each(|_| fleet.tick());
        }
        assert_eq!((fleet.ever_told_target.len(), fleet.rollout.bad.len()), (1, 0));
        fleet.run_until(3000, |s| *s == Stage::Complete);
        assert_eq!(fleet.have("new"), 20);
    }
}
