//! How long the way back is waited for: until the last node that can come is there, and no longer.
use crate::fleet::{Fleet, node, revision, strategy};
use berth_operator::rollout::{AgentState, Back, Cordon, Disruption, Grant, Node, Stage, back, plan};

const NOW: u64 = 3000;

/// Of a fleet whose target is known to be bad.
fn counted(fleet: &Fleet) -> Back {
    back(&fleet.rollout, &fleet.nodes, &plan(&fleet.rollout, &fleet.nodes, fleet.now), fleet.now)
}

fn taken_back(nodes: Vec<Node>) -> Fleet {
    let mut fleet = Fleet::new(nodes, strategy());
    fleet.rollout.bad.insert(revision("new"));
    fleet.now = NOW;
    fleet
}

/// What one node comes to that has the target, and was told a moment ago to go back.
fn of_one(change: impl FnOnce(&mut Node)) -> Back {
    let mut one = node(0, 1, Disruption::DaemonRestart);
    (one.current, one.desired) = (Some((revision("new"), 500)), Some((revision("old"), NOW - 100)));
    change(&mut one);
    counted(&taken_back(vec![one]))
}

#[test]
fn it_is_waited_for_until_the_last_node_is_back() {
    for disruption in [Disruption::None, Disruption::DaemonRestart, Disruption::Drain] {
        let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, disruption)).collect(), strategy());
        fleet.run_until(3000, |s| *s == Stage::Complete);
        assert_eq!((fleet.have("new"), counted(&fleet).going()), (10, 0));
        fleet.touch(|f| {
            f.rollout.bad.insert(revision("new"));
        });
        assert_eq!(counted(&fleet).going(), 10, "{disruption:?}: none is told yet");
        for _ in 0..3000 {
            if counted(&fleet).going() == 0 {
                break;
            }
            fleet.tick();
        }
        assert_eq!((fleet.have("old"), counted(&fleet).left()), (10, 0), "{disruption:?}: {:?}", fleet.stage);
    }
}

#[test]
fn a_node_that_cannot_come_back_is_counted_and_not_waited_for() {
    let goes: [fn(&mut Node); 6] = [
        |_| (),
        |n| (n.asks, n.desired) = (true, Some((revision("old"), NOW - 1900))),
        |n| n.unready_since = Some(600),
        |n| n.postponed_until = NOW - 101,
        |n| (n.hold, n.grant) = (true, leave("old")),
        |n| (n.desired, n.grant) = (Some((revision("old"), NOW - 1900)), leave("old")),
    ];
    for (at, change) in goes.into_iter().enumerate() {
        let back = of_one(change);
        assert_eq!((back.going(), back.stuck, back.put_off), (1, 0, 0), "{at}");
    }
    let put_off: [fn(&mut Node); 3] = [
        |n| n.postponed_until = NOW + 1,
        |n| (n.postponed_until, n.asks) = (NOW - 50, true),
        |n| (n.postponed_until, n.grant) = (NOW - 50, leave("old")),
    ];
    for (at, change) in put_off.into_iter().enumerate() {
        let back = of_one(change);
        assert_eq!((back.going(), back.put_off, back.stuck, back.left()), (0, 1, 0, 1), "{at}");
    }
    let stuck: [fn(&mut Node); 8] = [
        |n| n.hold = true,
        |n| n.agent = AgentState::CannotStart,
        |n| (n.agent, n.grant) = (AgentState::Crashes, leave("old")),
        |n| n.failed = Some(revision("old")),
        |n| n.lacks_policies = true,
        |n| n.desired = Some((revision("old"), NOW - 900)),
        |n| (n.desired, n.asks) = (Some((revision("old"), 0)), true),
        |n| (n.unready_since, n.asks, n.desired) = (Some(600), true, Some((revision("old"), NOW - 900))),
    ];
    for (at, change) in stuck.into_iter().enumerate() {
        let back = of_one(change);
        assert_eq!((back.going(), back.stuck, back.left()), (0, 1, 1), "{at}");
    }
}

fn leave(name: &str) -> Option<Grant> {
    Some(Grant { revision: revision(name), disruption: Disruption::DaemonRestart, expires: NOW + 1 })
}

/// One node of two may be away, and one is.
#[test]
fn a_turn_that_cannot_come_is_not_waited_for() {
    let of = |change: fn(&mut Node)| {
        let (mut has_it, mut away) = (node(0, 1, Disruption::DaemonRestart), node(1, 1, Disruption::DaemonRestart));
        has_it.current = Some((revision("new"), 500));
        has_it.desired = has_it.current.clone();
        change(&mut away);
        let back = counted(&taken_back(vec![has_it, away]));
        (back.at_it, back.waiting, back.going())
    };
    assert_eq!(of(|_| ()), (1, 0, 1), "nobody is away: it is told");
    assert_eq!(of(|n| n.unready_since = Some(NOW - 10)), (0, 1, 1));
    assert_eq!(
        of(|n| n.cordon = Cordon::Ours(NOW - 10)),
        (0, 1, 1),
        "it is through, and about to be schedulable again"
    );
    assert_eq!(of(|n| n.unready_since = Some(NOW - 900)), (0, 1, 0));
    assert_eq!(of(|n| n.cordon = Cordon::Foreign), (0, 1, 0));
}

/// A pod that may never go: the node is tried again and again, and the end is told all the same, once the others are back.
#[test]
fn a_node_that_is_put_off_again_and_again_is_waited_for_once() {
    let mut fleet = Fleet::new((0..10).map(|n| node(n, 3, Disruption::Drain)).collect(), strategy());
    fleet.run_until(3000, |s| *s == Stage::Complete);
    let last = fleet.nodes.iter().map(|n| (n.current.as_ref().unwrap().1, n.name.clone())).max().unwrap().1;
    fleet.touch(|f| {
        f.rollout.bad.insert(revision("new"));
        f.stuck_until.insert(last, u64::MAX);
    });
    fleet.run_until(3000, |s| *s == Stage::RollingBack { left: 1 });
    while counted(&fleet).going() > 0 {
        let told =
            fleet.nodes.iter().filter(|n| !n.settled()).filter_map(|n| n.desired.as_ref()).map(|(_, at)| *at).min();
        assert!(fleet.now <= told.unwrap() + 2700, "{}", fleet.log.join("\n"));
        fleet.tick();
    }
    for _ in 0..2000 {
        fleet.tick();
        let back = counted(&fleet);
        assert_eq!((back.going(), back.put_off, back.left()), (0, 1, 1), "{}", fleet.log.join("\n"));
    }
    assert!(fleet.log.iter().filter(|line| line.contains("DrainTimedOut")).count() > 3, "it is tried again");
}
