//! Leave that ends before anything was begun under it.
use crate::fleet::{Fleet, node, revision, strategy};
use berth_operator::rollout::{Cordon, Disruption, Grant, Stage};

/// What agents say meanwhile: node-runtime/crates/agent/src/run/tests/place.rs.
#[test]
fn leave_that_was_not_used_is_nobodys_failure() {
    for disruption in [Disruption::DaemonRestart, Disruption::Drain] {
        let mut fleet = Fleet::new((0..20).map(|n| node(n, 3, disruption)).collect(), strategy());
        fleet.busy_until = fleet.now + 5 * fleet.rollout.strategy.node_timeout;
        while fleet.now < fleet.busy_until {
            fleet.tick();
        }
        let log = fleet.log.join("\n");
        assert!(log.contains("GrantExpired") && fleet.rollout.bad.is_empty(), "{disruption:?} {log}");
        assert!(matches!(fleet.stage, Stage::Wave { index: 0, .. }), "{disruption:?} {:?}", fleet.stage);
        fleet.run_until(3000, |s| *s == Stage::Complete);
        assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (20, 0), "{disruption:?} {}", fleet.log.join("\n"));
        fleet.run_until(3, |_| true);
        assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None), "{disruption:?} {}", fleet.log.join("\n"));
    }
}

#[test]
fn what_was_begun_ends_with_its_leave_and_what_is_not_told_yet_a_little_later() {
    let lapsed = |asks: bool, begun: bool, at: u64| {
        let mut node = node(0, 1, Disruption::Drain);
        node.desired = Some((revision("new"), 1000));
        node.grant = Some(Grant { revision: revision("new"), disruption: Disruption::Drain, expires: 2000 });
        (node.asks, node.begun) = (asks, begun);
        node.lapsed(600, at)
    };
    for (asks, begun, ends) in [(false, true, 2000), (true, true, 2000), (false, false, 2030)] {
        assert!(!lapsed(asks, begun, ends - 1) && lapsed(asks, begun, ends), "asks: {asks}, begun: {begun}");
    }
    assert!(!lapsed(true, false, u64::MAX), "it says that nothing was begun");
}
