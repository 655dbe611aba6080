//! What holds for every fleet: budgets and marks (checked at each tick by the fleet itself), and an end.
use crate::fleet::{Agent, Fleet, node};
use berth_operator::rollout::{Cordon, Disruption, OnFailure, Share, Stage, Strategy, UNUSED_LEAVES};
use proptest::prelude::*;

fn disruption() -> impl Strategy_<Value = Disruption> {
    prop_oneof![
        Just(Disruption::None),
        Just(Disruption::NewPods),
        Just(Disruption::DaemonRestart),
        Just(Disruption::KubeletRestart),
        Just(Disruption::Drain),
    ]
}

use proptest::strategy::Strategy as Strategy_;

fn share() -> impl Strategy_<Value = Share> {
    prop_oneof![(1..20_usize).prop_map(Share::Nodes), (1..=100_u8).prop_map(Share::Percent)]
}

fn how() -> impl Strategy_<Value = Strategy> {
    (prop::collection::vec(share(), 0..5), share(), share()).prop_map(|(waves, max_unavailable, max_in_flight)| {
        Strategy { waves, max_unavailable, max_in_flight, ..Strategy::default() }
    })
}

fn agent() -> impl Strategy_<Value = Agent> {
    prop_oneof![
        8 => (0..300_u64).prop_map(Agent::Good),
        1 => (0..300_u64).prop_map(Agent::GivesUp),
        1 => Just(Agent::Hangs),
        1 => Just(Agent::Absent),
        1 => (0..300_u64).prop_map(Agent::Breaks),
    ]
}

fn ended(stage: &Stage) -> bool {
    matches!(stage, Stage::Complete | Stage::RolledBack)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn good_revisions_reach_every_node_within_reach(
        count in 1..40_usize, zones in 1..4_usize, disruption in disruption(), how in how(), times in prop::collection::vec(0..300_u64, 40),
        away in prop::collection::btree_set(0..40_usize, 0..8),
    ) {
        let mut fleet = Fleet::new((0..count).map(|n| node(n, zones, disruption)).collect(), how);
        for (n, time) in times.iter().enumerate().take(count) {
            fleet.agents.insert(format!("n{n:03}"), Agent::Good(*time));
        }
        // Somebody else works on some of them; they take from the budget, and here always leave something of it.
        let most = fleet.rollout.strategy.max_unavailable.at_least(count);
        let away: Vec<_> = away.into_iter().filter(|n| *n < count).take(most.saturating_sub(1)).collect();
        for n in &away {
            fleet.node(&format!("n{n:03}")).cordon = Cordon::Foreign;
        }
        fleet.run_until(20_000, ended);
        prop_assert_eq!(&fleet.stage, &Stage::Complete);
        prop_assert_eq!(fleet.have("new"), count - away.len());
        prop_assert!(fleet.nodes.iter().all(|n| !matches!(n.cordon, Cordon::Ours(_))));
    }

    #[test]
    fn whatever_fails_the_end_is_one_revision_and_no_node_is_left_behind(
        count in 1..30_usize, disruption in disruption(), back in disruption(), how in how(), agents in prop::collection::vec(agent(), 30),
        stuck in prop::collection::btree_map(0..30_usize, 1000..9000_u64, 0..4),
    ) {
        let mut fleet = Fleet::new((0..count).map(|n| node(n, 2, disruption)).collect(), how);
        fleet.agents = agents.iter().take(count).enumerate().map(|(n, a)| (format!("n{n:03}"), *a)).collect();
        // The way back may take another thing than the way there.
        fleet.between = Some(Box::new(move |_, to| if to == "old" { back } else { disruption }));
        fleet.stuck_until = stuck.into_iter().filter(|(n, _)| *n < count).map(|(n, t)| (format!("n{n:03}"), t)).collect();
        fleet.run_until(20_000, ended);
        if fleet.stage == Stage::RolledBack {
            prop_assert_eq!(fleet.have("old"), count, "all are back");
        } else {
            // One that was put off may have had its turn once all others were through: like a newcomer it has nobody to protect.
            let judged = fleet.nodes.iter().filter(|n| !fleet.stuck_until.contains_key(&n.name));
            let failed = judged.filter(|n| !n.has(&fleet.rollout.target) || n.unready_since.is_some()).count();
            prop_assert!(failed <= fleet.rollout.strategy.failures.at_most(count), "{} failed", failed);
        }
        // What is there is schedulable: in the next plans, which release what the last one made free.
        for _ in 0..3 {
            fleet.touch(|_| ());
            fleet.tick();
        }
        let cordoned = |n: &&berth_operator::rollout::Node| matches!(n.cordon, Cordon::Ours(_)) && n.unready_since.is_none();
        prop_assert!(!fleet.nodes.iter().any(|n| cordoned(&n)), "{}", fleet.log.join("\n"));
    }

    /// On the way there; on the way back there is nothing that they would have to undo.
    #[test]
    fn agents_that_never_use_their_leave_come_to_an_end(
        count in 1..40_usize, disruption in disruption(), how in how(), never in prop::collection::btree_set(0..40_usize, 1..40),
        on_failure in prop_oneof![Just(OnFailure::Rollback), Just(OnFailure::Halt), Just(OnFailure::Continue)],
    ) {
        let mut fleet = Fleet::new((0..count).map(|n| node(n, 2, disruption)).collect(), Strategy { on_failure, ..how });
        fleet.never_begin = never.iter().filter(|n| **n < count).map(|n| format!("n{n:03}")).collect();
        let all = fleet.never_begin.len() == count && disruption >= Disruption::DaemonRestart;
        // A wave of which nobody came through opens no next one.
        let goes_on = on_failure == OnFailure::Continue && disruption >= Disruption::DaemonRestart;
        let decides = |fleet: &Fleet| all || (goes_on && fleet.have("new") == 0);
        // Where it goes on whatever fails, and nobody comes through, it waits for somebody to decide.
        let failed = |fleet: &Fleet| fleet.nodes.iter().filter(|n| n.failed.is_some()).count();
        for _ in 0..60_000 {
            fleet.tick();
            if ended(&fleet.stage) || fleet.stage == Stage::Halted || (decides(&fleet) && failed(&fleet) > 0) {
                break;
            }
        }
        let end = ended(&fleet.stage) || fleet.stage == Stage::Halted;
        prop_assert!(end || (decides(&fleet) && failed(&fleet) > 0), "{:?} {}", fleet.stage, fleet.log.join("\n"));
        prop_assert!(fleet.nodes.iter().all(|n| n.unused <= UNUSED_LEAVES));
    }

    #[test]
    fn a_revision_that_no_node_survives_touches_the_first_wave_alone(
        count in 1..30_usize, disruption in disruption(), how in how(), agent in agent(),
    ) {
        prop_assume!(!matches!(agent, Agent::Good(_)));
        let first = how.waves.first().copied().unwrap_or(Share::Percent(100)).at_least(count);
        let mut fleet = Fleet::new((0..count).map(|n| node(n, 2, disruption)).collect(), how);
        fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), agent)).collect();
        fleet.run_until(20_000, |s| *s == Stage::RolledBack);
        prop_assert!(fleet.ever_told_target.len() <= first);
        prop_assert_eq!(fleet.have("old"), count);
    }
}
