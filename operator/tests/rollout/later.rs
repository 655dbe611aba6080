//! Long after a revision came through: what happens to nodes then is no news of it.
use crate::fleet::{Agent, Fleet, node, revision, strategy};
use berth_operator::rollout::{ControlPlane, Disruption, Pods, Share, Stage};

fn fleet(count: usize, disruption: Disruption) -> Fleet {
    Fleet::new((0..count).map(|n| node(n, 3, disruption)).collect(), strategy())
}

fn wait(fleet: &mut Fleet, seconds: u64) {
    let end = fleet.now + seconds;
    while fleet.now < end {
        fleet.tick();
    }
}

fn join(fleet: &mut Fleet, number: usize) {
    let mut new = node(number, 3, Disruption::DaemonRestart);
    (new.desired, new.current) = (None, None);
    fleet.touch(|f| f.nodes.push(new));
}

/// A pod without a controller, for ever: the node is put off every quarter of an hour.
#[test]
fn a_node_that_is_put_off_for_ever_does_not_have_the_others_judged_for_ever() {
    let mut fleet = fleet(10, Disruption::Drain);
    fleet.node("n005").pods = Pods::Blocking;
    while fleet.have("new") < 9 {
        fleet.tick();
    }
    wait(&mut fleet, 3600);
    assert!(
        fleet.rollout.came_through.is_some() && matches!(fleet.stage, Stage::Wave { index: 3, .. }),
        "{:?}",
        fleet.stage
    );
    let ill = fleet.now;
    fleet.touch(|f| f.node("n003").unready_since = Some(ill));
    wait(&mut fleet, 7200);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (9, 0), "{}", fleet.log.join("\n"));
    fleet.touch(|f| {
        f.node("n003").unready_since = None;
        f.node("n005").pods = Pods::Evictable;
    });
    fleet.run_until(1000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 10, "it has its turn");
}

/// Seven workers and a control plane of three; pods without a controller on so many of the workers.
fn with_control_plane(blocked: usize) -> Fleet {
    let mut fleet = fleet(10, Disruption::Drain);
    let strategy = &mut fleet.rollout.strategy;
    (strategy.control_plane, strategy.max_unavailable) = (ControlPlane::Last, Share::Nodes(1));
    fleet.nodes[7..].iter_mut().for_each(|n| n.control_plane = true);
    fleet.nodes[..blocked].iter_mut().for_each(|n| n.pods = Pods::Blocking);
    fleet
}

fn control_plane_with(fleet: &Fleet, name: &str) -> usize {
    fleet.nodes.iter().filter(|n| n.control_plane && n.has(&revision(name))).count()
}

#[test]
fn the_control_plane_waits_for_no_worker_that_is_put_off_for_ever() {
    let mut fleet = with_control_plane(1);
    while fleet.have("new") < 6 {
        assert_eq!(control_plane_with(&fleet, "new"), 0, "it comes last");
        fleet.tick();
    }
    wait(&mut fleet, 4 * 3600);
    assert_eq!((fleet.have("new"), control_plane_with(&fleet, "new")), (9, 3), "{}", fleet.log.join("\n"));
    assert!(fleet.rollout.came_through.is_some(), "nobody is judged any more: {:?}", fleet.stage);
    let ill = fleet.now;
    fleet.touch(|f| f.node("n003").unready_since = Some(ill));
    wait(&mut fleet, 7200);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (9, 0));
    fleet.touch(|f| {
        f.node("n003").unready_since = None;
        f.node("n000").pods = Pods::Evictable;
    });
    fleet.run_until(1000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 10, "it has its turn");
}

#[test]
fn the_control_plane_tries_nothing_for_workers_that_cannot() {
    for (blocked, control_plane) in [(7, 0), (4, 0), (3, 3)] {
        let mut fleet = with_control_plane(blocked);
        wait(&mut fleet, 6 * 3600);
        assert_eq!(control_plane_with(&fleet, "new"), control_plane, "{blocked}: {}", fleet.log.join("\n"));
        assert_eq!(fleet.have("new"), 7 - blocked + control_plane);
    }
}

/// An upgrade of the nodes' system: one after the other is replaced by a new one, and one of those cannot have it.
#[test]
fn a_pool_whose_nodes_are_replaced_one_by_one_is_not_judged_anew() {
    let mut fleet = fleet(10, Disruption::DaemonRestart);
    fleet.run_until(3000, |s| *s == Stage::Complete);
    let first = fleet.rollout.came_through;
    fleet.agents.insert("n104".to_owned(), Agent::GivesUp(20));
    for number in 0..10 {
        join(&mut fleet, 100 + number);
        wait(&mut fleet, 600);
        fleet.touch(|f| f.nodes.retain(|n| n.name != format!("n{number:03}")));
        wait(&mut fleet, 60);
    }
    wait(&mut fleet, 3600);
    assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (9, 0), "{}", fleet.log.join("\n"));
    assert_eq!(fleet.node("n104").failed, Some(revision("new")));
    assert!(fleet.rollout.came_through > first);
    let again = fleet.log.iter().filter(|line| line.contains("Graduate")).count();
    assert!((2..=11).contains(&again), "once for each that joined, and no more: {again}");
}
