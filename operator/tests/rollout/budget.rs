//! Nodes that are away, and have of the budget what the rollout would need.
use crate::fleet::{Fleet, node, strategy};
use berth_operator::rollout::{Cordon, Disruption, Share, Short, Stage, Strategy, plan};

fn fleet(disruption: Disruption) -> Fleet {
    let strategy = Strategy { max_unavailable: Share::Nodes(1), ..strategy() };
    Fleet::new((0..20).map(|n| node(n, 3, disruption)).collect(), strategy)
}

fn short(fleet: &Fleet) -> Option<Short> {
    plan(&fleet.rollout, &fleet.nodes, fleet.now).short
}

#[test]
fn whoever_is_away_for_long_is_named_while_others_are_due() {
    let mut fleet = fleet(Disruption::Drain);
    fleet.node("n007").unready_since = Some(10);
    (0..20).for_each(|_| fleet.tick());
    assert!(fleet.ever_told_target.is_empty() && matches!(fleet.stage, Stage::Wave { index: 0, .. }));
    assert_eq!(short(&fleet), Some(Short { due: 1, away: vec!["n007".to_owned()] }));
    fleet.node("n009").cordon = Cordon::Foreign;
    assert_eq!(short(&fleet).unwrap().away, ["n007", "n009"]);
    fleet.rollout.paused = true;
    assert_eq!(short(&fleet), None, "nobody is due");
}

#[test]
fn what_the_rollout_itself_does_is_not_named() {
    let mut drained = fleet(Disruption::Drain);
    drained.rollout.strategy.waves.clear();
    (0..3).for_each(|_| drained.tick());
    assert_eq!((drained.ever_told_target.len(), short(&drained)), (1, None), "it has the whole of the budget");
    let mut live = fleet(Disruption::None);
    live.node("n007").unready_since = Some(10);
    live.tick();
    assert_eq!((live.ever_told_target.len(), short(&live)), (1, None), "nobody has to be away for it");
}
