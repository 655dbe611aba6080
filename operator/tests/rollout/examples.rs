//! Single cases, as an administrator would tell them.
use crate::fleet::{Agent, Fleet, node, revision, strategy};
use berth_operator::rollout::{
    Action, AgentState, ControlPlane, Cordon, Disruption, OnFailure, Pods, Share, Stage, Strategy, leave, plan, share,
};

fn fleet(count: usize, disruption: Disruption) -> Fleet {
    Fleet::new((0..count).map(|n| node(n, 3, disruption)).collect(), strategy())
}

fn told(fleet: &Fleet) -> usize {
    fleet.ever_told_target.len()
}

#[test]
fn a_canary_soaks_before_anybody_else_is_told() {
    let mut fleet = fleet(40, Disruption::None);
    fleet.run_until(20, |s| matches!(s, Stage::Wave { index: 0, soak_until: Some(_), .. }));
    assert_eq!((told(&fleet), fleet.have("new")), (1, 1));
    fleet.run_until(70, |s| matches!(s, Stage::Wave { index: 1, .. }));
    assert!((2..=2).contains(&told(&fleet)), "5 % of 40 are two");
    fleet.run_until(500, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 40);
    let standing = fleet.rollout.clone().standing(&fleet.nodes);
    assert_eq!(standing.last_known_good, Some(revision("new")));
}

#[test]
fn a_canary_that_fails_is_the_only_one() {
    for agent in [Agent::GivesUp(40), Agent::Hangs, Agent::Breaks(20)] {
        for disruption in [Disruption::None, Disruption::DaemonRestart, Disruption::Drain] {
            let mut fleet = fleet(20, disruption);
            fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), agent)).collect();
            fleet.run_until(400, |s| *s == Stage::RolledBack);
            assert_eq!((told(&fleet), fleet.have("old")), (1, 20), "{agent:?} {disruption:?}");
            fleet.tick();
            assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None || n.unready_since.is_some()));
        }
    }
}

#[test]
fn a_node_that_falls_ill_after_the_rollout_takes_nothing_back() {
    let mut fleet = fleet(10, Disruption::DaemonRestart);
    fleet.run_until(3000, |s| *s == Stage::Complete);
    fleet.tick();
    let (since, day) = (fleet.now, 86_400);
    fleet.touch(|f| f.node("n003").unready_since = Some(since));
    fleet.touch(|f| f.node("n004").unhealthy_since = Some(since));
    let end = since + day;
    while fleet.now < end {
        fleet.touch(|_| ());
        fleet.tick();
    }
    assert!(fleet.rollout.bad.is_empty(), "{:?}", fleet.stage);
    assert_eq!((fleet.have("new"), fleet.stage.clone()), (10, Stage::Complete));
}

#[test]
fn late_failures_up_to_the_threshold_are_reported_and_more_turn_back() {
    for (failing, stage) in [(2, Stage::Complete), (4, Stage::RolledBack)] {
        let mut fleet = fleet(40, Disruption::DaemonRestart);
        // Zone z2 comes last.
        let last: Vec<_> = fleet.nodes.iter().filter(|n| n.zone == "z2").rev().take(failing).cloned().collect();
        fleet.agents = last.iter().map(|n| (n.name.clone(), Agent::GivesUp(20))).collect();
        fleet.run_until(3000, |s| *s == stage);
        let have = if failing == 2 { ("new", 38) } else { ("old", 40) };
        assert_eq!(fleet.have(have.0), have.1, "{failing} of 40 fail, 5 % may");
    }
}

#[test]
fn without_anything_to_go_back_to_it_says_so_and_leaves_no_node_cordoned() {
    for agent in [Agent::GivesUp(10), Agent::Hangs, Agent::Absent] {
        for disruption in [Disruption::None, Disruption::DaemonRestart, Disruption::Drain] {
            let mut fleet = fleet(4, disruption);
            fleet.rollout.last_known_good = None;
            fleet.nodes.iter_mut().for_each(|n| (n.desired, n.current) = (None, None));
            fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), agent)).collect();
            fleet.run_until(200, |s| *s == Stage::NothingToGoBackTo);
            fleet.run_until(3, |_| true);
            assert_eq!(told(&fleet), 1);
            let left = |n: &&berth_operator::rollout::Node| n.cordon != Cordon::None || n.wants(&revision("new"));
            assert!(!fleet.nodes.iter().any(|n| left(&n)), "{agent:?} {disruption:?}: {}", fleet.log.join("\n"));
            if agent == Agent::Absent {
                assert!(!fleet.log.iter().any(|l| l.contains("Cordon")), "an agent that is not there drains nobody");
            }
        }
    }
}

#[test]
fn one_that_hangs_late_is_put_aside_and_the_others_go_on() {
    let mut fleet = fleet(25, Disruption::Drain);
    fleet.rollout.strategy.max_unavailable = Share::Nodes(1);
    // The last but one of the last zone: 5 % of 24 that were told may fail.
    fleet.agents.insert("n020".into(), Agent::Hangs);
    fleet.run_until(4000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 24);
    fleet.run_until(3, |_| true);
    assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None), "{}", fleet.log.join("\n"));
}

#[test]
fn an_agent_that_was_away_on_the_way_back_gets_another_grant() {
    let mut fleet = fleet(3, Disruption::Drain);
    for n in &mut fleet.nodes {
        (n.current, n.desired) = (Some((revision("new"), 0)), Some((revision("new"), 0)));
    }
    fleet.rollout.bad.insert(revision("new"));
    // Its only grant is over before its agent looks.
    fleet.run_until(200, |_| true);
    while !fleet.log.iter().any(|l| l.contains("Grant")) {
        fleet.tick();
    }
    let away = fleet.nodes.iter().find(|n| n.grant.is_some()).unwrap().name.clone();
    let over = fleet.now;
    fleet.touch(|f| f.node(&away).grant.as_mut().unwrap().expires = over);
    fleet.run_until(2000, |s| *s == Stage::RolledBack);
    fleet.run_until(3, |_| true);
    assert_eq!(fleet.have("old"), 3);
    assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None));
}

#[test]
fn a_broken_node_that_could_not_be_drained_in_its_first_turn_comes_back_in_another() {
    let mut fleet = fleet(1, Disruption::None);
    fleet.between = Some(Box::new(|_, to| if to == "old" { Disruption::Drain } else { Disruption::None }));
    fleet.agents.insert("n000".into(), Agent::Breaks(0));
    // Longer than one turn takes; not Ready, it keeps its cordon meanwhile.
    fleet.stuck_until.insert("n000".into(), 5000);
    fleet.run_until(1000, |s| *s == Stage::RolledBack);
    assert_eq!(fleet.have("old"), 1);
}

#[test]
fn a_node_whose_agent_does_not_run_is_told_nothing_until_it_does() {
    for (state, disruption) in [(AgentState::CannotStart, Disruption::None), (AgentState::Crashes, Disruption::Drain)] {
        let mut fleet = fleet(10, disruption);
        // The first one would be the canary.
        for name in ["n000", "n007"] {
            fleet.node(name).agent = state;
            fleet.agents.insert(name.into(), Agent::Absent);
        }
        fleet.run_until(2000, |s| *s == Stage::Complete);
        assert_eq!((told(&fleet), fleet.have("new")), (8, 8));
        assert!(fleet.rollout.bad.is_empty() && fleet.node("n000").cordon == Cordon::None);
        fleet.agents.clear();
        fleet.touch(|f| f.nodes.iter_mut().for_each(|n| n.agent = AgentState::Runs));
        fleet.run_until(2000, |s| *s == Stage::Complete);
        assert_eq!(fleet.have("new"), 10);
    }
}

/// The image of the agents is replaced by one that does not start while a rollout is under way: node by node they are gone.
#[test]
fn an_agent_that_is_replaced_by_none_says_nothing_of_the_revision() {
    for disruption in [Disruption::None, Disruption::DaemonRestart, Disruption::Drain] {
        let mut fleet = fleet(10, disruption);
        fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), Agent::Absent)).collect();
        while told(&fleet) == 0 {
            fleet.tick();
        }
        fleet.touch(|f| f.nodes.iter_mut().for_each(|n| n.agent = AgentState::CannotStart));
        let end = fleet.now + 2 * fleet.rollout.strategy.node_timeout;
        while fleet.now < end {
            fleet.tick();
        }
        assert!(fleet.rollout.bad.is_empty(), "{}", fleet.log.join("\n"));
        assert_eq!((told(&fleet), fleet.have("old")), (1, 10));
        assert!(fleet.nodes.iter().all(|n| n.settled() && n.cordon == Cordon::None));
        fleet.agents.clear();
        fleet.touch(|f| f.nodes.iter_mut().for_each(|n| n.agent = AgentState::Runs));
        fleet.run_until(2000, |s| *s == Stage::Complete);
        assert_eq!(fleet.have("new"), 10);
    }
}

#[test]
fn what_an_agent_asked_for_that_is_gone_drains_nobody() {
    for state in [AgentState::CannotStart, AgentState::Crashes] {
        let mut fleet = fleet(6, Disruption::Drain);
        let drained = in_mid_drain(&mut fleet);
        fleet.agents.insert(drained.clone(), Agent::Absent);
        fleet.touch(|f| f.node(&drained).agent = state);
        fleet.stuck_until.clear();
        (0..3).for_each(|_| fleet.tick());
        let node = fleet.node(&drained);
        assert!(node.cordon == Cordon::None && node.settled() && node.grant.is_none(), "{state:?}: {node:?}");
        fleet.run_until(4000, |s| *s == Stage::Complete);
        assert_eq!((fleet.have("new"), fleet.rollout.bad.len()), (5, 0), "{state:?}");
    }
}

/// Stops a rollout when a node is cordoned, has pods and no grant yet; the node.
fn in_mid_drain(fleet: &mut Fleet) -> String {
    fleet.stuck_until = fleet.nodes.iter().map(|n| (n.name.clone(), u64::MAX)).collect();
    for _ in 0..100 {
        fleet.tick();
        let drained = fleet.nodes.iter().find(|n| matches!(n.cordon, Cordon::Ours(_)) && n.grant.is_none());
        if let Some(node) = drained {
            return node.name.clone();
        }
    }
    panic!("{}", fleet.log.join("\n"));
}

#[test]
fn whatever_stops_a_rollout_in_mid_drain_makes_the_node_schedulable_again() {
    type Stop = fn(&mut Fleet, &str);
    let stops: [(Stop, Stage); 4] = [
        (|f, _| f.rollout.paused = true, Stage::Paused),
        (
            |f, other| {
                f.rollout.strategy.on_failure = OnFailure::Halt;
                let new = (revision("new"), 1000);
                (f.node(other).failed, f.node(other).desired) = (Some(new.0.clone()), Some(new));
            },
            Stage::Halted,
        ),
        (
            |f, _| {
                f.rollout.bad.insert(revision("new"));
                f.rollout.last_known_good = None;
            },
            Stage::NothingToGoBackTo,
        ),
        (|f, _| f.nodes.iter_mut().for_each(|n| n.hold = true), Stage::Wave { index: 0, total: 4, soak_until: None }),
    ];
    for (stop, stage) in stops {
        let mut fleet = fleet(6, Disruption::Drain);
        let drained = in_mid_drain(&mut fleet);
        let other = if drained == "n005" { "n004" } else { "n005" };
        fleet.touch(|f| stop(f, other));
        for _ in 0..3 {
            fleet.tick();
        }
        assert_eq!(fleet.stage, stage);
        let node = fleet.node(&drained);
        assert!(node.cordon == Cordon::None && node.settled(), "{stage:?}: {node:?}");
    }
}

#[test]
fn a_node_that_no_rollout_is_about_any_more_is_left_schedulable() {
    let mut fleet = fleet(3, Disruption::Drain);
    let drained = in_mid_drain(&mut fleet);
    let now = fleet.now;
    let mut node = fleet.node(&drained).clone();
    let first = leave(&node, false, now).unwrap();
    assert!(matches!(&first, Action::Postpone { back_to: Some(old), .. } if *old == revision("old")), "{first:?}");
    assert_eq!(leave(&node, true, now), Some(first.clone()), "frozen or not");
    // Told, and not yet cordoned: it would ask for leave for ever.
    node.cordon = Cordon::None;
    assert_eq!(leave(&node, false, now), Some(first));
    assert_eq!(leave(&node, true, now), None, "it is not known what it is to have");
    node.begun = true;
    assert_eq!(leave(&node, false, now), None, "what has begun is finished");
    (node.cordon, node.desired) = (Cordon::Ours(now), node.current.clone());
    assert_eq!(leave(&node, false, now), Some(Action::Uncordon { node: drained }));
    node.cordon = Cordon::Foreign;
    assert_eq!(leave(&node, false, now), None, "that of somebody else is theirs");
}

#[test]
fn an_agent_that_works_under_a_grant_is_left_to_it() {
    for paused in [true, false] {
        let mut fleet = fleet(3, Disruption::Drain);
        fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), Agent::Good(200))).collect();
        while fleet.nodes.iter().all(|n| n.grant.is_none() || !n.begun) {
            fleet.tick();
        }
        let granted = fleet.nodes.iter().find(|n| n.grant.is_some()).unwrap().name.clone();
        fleet.touch(|f| {
            f.rollout.paused = paused;
            f.node(&granted).hold = !paused;
        });
        (0..30).for_each(|_| fleet.tick());
        assert!(fleet.node(&granted).has(&revision("new")) && fleet.node(&granted).cordon == Cordon::None);
    }
}

#[test]
fn what_was_begun_without_a_budget_is_not_carried_on_with_another_disruption() {
    // From old to new is live, everything else drains.
    let between = |from: &str, to: &str| match (from, to) {
        ("old", "new") => Disruption::None,
        _ => Disruption::Drain,
    };
    let mut fleet = fleet(50, Disruption::None);
    fleet.between = Some(Box::new(between));
    fleet.rollout.strategy.max_unavailable = Share::Nodes(1);
    fleet.rollout.strategy.soak_canary = 0;
    fleet.rollout.strategy.soak_wave = 0;
    fleet.agents = fleet.nodes.iter().skip(1).map(|n| (n.name.clone(), Agent::Hangs)).collect();
    fleet.rollout.strategy.waves = vec![Share::Percent(100)];
    (0..3).for_each(|_| fleet.tick());
    let live = fleet.nodes.iter().filter(|n| !n.settled()).count();
    assert!(live > 10, "{live} nodes are on their way at once, as it interrupts nobody");
    fleet.touch(|f| {
        f.rollout.target = revision("newer");
        f.agents.clear();
    });
    // The fleet looks at each plan: never more than one node is cordoned.
    fleet.run_until(20_000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("newer"), 50);
    assert!(fleet.nodes.iter().all(|n| n.cordon == Cordon::None));
}

#[test]
fn a_drain_for_a_former_target_is_not_carried_on() {
    let mut fleet = fleet(6, Disruption::Drain);
    let drained = in_mid_drain(&mut fleet);
    let between = |_: &str, to: &str| if to == "newer" { Disruption::None } else { Disruption::Drain };
    fleet.between = Some(Box::new(between));
    // Nobody is told of the other one before it is tried elsewhere.
    fleet.node(&drained).hold = true;
    fleet.touch(|f| f.rollout.target = revision("newer"));
    (0..3).for_each(|_| fleet.tick());
    let node = fleet.node(&drained).clone();
    assert!(node.cordon == Cordon::None && node.settled() && node.grant.is_none(), "{node:?}");
    fleet.touch(|f| f.node(&drained).hold = false);
    fleet.run_until(2000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("newer"), 6);
}

#[test]
fn the_way_back_is_granted_for_what_it_takes() {
    // There it is live, back it takes a drain: the fleet looks whether each grant is for enough.
    let between = |from: &str, to: &str| match (from, to) {
        ("new", "old") => Disruption::Drain,
        _ => Disruption::None,
    };
    let mut fleet = fleet(10, Disruption::None);
    fleet.between = Some(Box::new(between));
    fleet.agents = fleet.nodes.iter().map(|n| (n.name.clone(), Agent::Breaks(10))).collect();
    fleet.run_until(2000, |s| *s == Stage::RolledBack);
    assert_eq!(fleet.have("old"), 10);
}

#[test]
fn pods_that_would_be_lost_put_a_node_off_before_anything_happens_to_it() {
    let mut fleet = fleet(3, Disruption::Drain);
    fleet.node("n000").pods = Pods::Blocking;
    while fleet.have("new") < 2 {
        fleet.tick();
    }
    (0..300).for_each(|_| fleet.tick());
    assert!(!fleet.log.iter().any(|l| l.contains("Cordon { node: \"n000\" }")), "{}", fleet.log.join("\n"));
    assert_eq!(fleet.have("new"), 2);
    let touched = |f: &mut Fleet| f.node("n000").pods = Pods::Evictable;
    fleet.touch(touched);
    fleet.run_until(2000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 3);
}

#[test]
fn halt_leaves_all_as_it_is() {
    let mut fleet = fleet(10, Disruption::None);
    fleet.rollout.strategy.on_failure = OnFailure::Halt;
    fleet.agents.insert("n000".into(), Agent::GivesUp(10));
    fleet.run_until(100, |s| *s == Stage::Halted);
    assert!(fleet.node("n000").wants(&revision("new")) && fleet.rollout.bad.is_empty());
}

#[test]
fn pods_that_cannot_go_put_a_node_off_and_say_nothing_about_the_revision() {
    let mut fleet = fleet(3, Disruption::Drain);
    fleet.stuck_until.insert("n000".into(), 6000);
    fleet.run_until(250, |s| matches!(s, Stage::Wave { index: 0, soak_until: Some(_), .. }));
    assert!(fleet.rollout.bad.is_empty() && fleet.node("n000").wants(&revision("old")), "another was the canary");
    assert_eq!(fleet.node("n000").cordon, Cordon::None);
    fleet.run_until(2000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 3, "it had its turn later");
}

#[test]
fn a_pause_stops_what_is_new_and_a_resume_goes_on() {
    let mut fleet = fleet(10, Disruption::DaemonRestart);
    fleet.run_until(20, |s| matches!(s, Stage::Wave { soak_until: Some(_), .. }));
    fleet.touch(|f| f.rollout.paused = true);
    fleet.run_until(3, |s| *s == Stage::Paused);
    for _ in 0..200 {
        fleet.tick();
    }
    assert_eq!(told(&fleet), 1);
    fleet.touch(|f| f.rollout.paused = false);
    fleet.run_until(1000, |s| *s == Stage::Complete);
}

#[test]
fn foreign_cordons_holds_and_absent_nodes_stay_as_they_are_and_stop_nobody() {
    let mut fleet = fleet(12, Disruption::None);
    fleet.node("n001").cordon = Cordon::Foreign;
    fleet.node("n002").hold = true;
    fleet.node("n003").unready_since = Some(10);
    fleet.run_until(1000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 9);
    fleet.touch(|f| f.node("n003").unready_since = None);
    fleet.run_until(20, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 10, "a node that comes back is served at once when the revision is known to be good");
}

#[test]
fn the_control_plane_is_asked_for_and_comes_last_one_at_a_time() {
    let mut nodes: Vec<_> = (0..8).map(|n| node(n, 1, Disruption::DaemonRestart)).collect();
    nodes[..3].iter_mut().for_each(|n| n.control_plane = true);
    let run = |control_plane| {
        let strategy = Strategy { control_plane, max_unavailable: Share::Nodes(8), ..strategy() };
        let mut fleet = Fleet::new(nodes.clone(), strategy);
        fleet.run_until(2000, |s| *s == Stage::Complete);
        fleet
    };
    assert_eq!(run(ControlPlane::Exclude).have("new"), 5);
    let fleet = run(ControlPlane::Last);
    let begun = |n: &str| fleet.nodes.iter().find(|m| m.name == n).unwrap().desired.as_ref().unwrap().1;
    assert_eq!(fleet.have("new"), 8);
    let mut times: Vec<_> = ["n000", "n001", "n002"].map(begun).to_vec();
    let workers = (3..8).map(|n| begun(&format!("n{n:03}"))).max().unwrap();
    times.sort_unstable();
    assert!(times[0] > workers, "after all workers");
    assert!(times.windows(2).all(|w| w[0] < w[1]), "one at a time: {times:?}");
}

#[test]
fn small_waves_stay_in_one_zone() {
    let mut fleet = fleet(60, Disruption::None);
    for _ in 0..400 {
        fleet.tick();
        let underway: Vec<_> = fleet.nodes.iter().filter(|n| !n.settled()).map(|n| n.zone.clone()).collect();
        if told(&fleet) <= 15 {
            assert!(underway.windows(2).all(|w| w[0] == w[1]), "{underway:?}");
        }
    }
    assert!(told(&fleet) > 15, "the large waves came, too");
}

#[test]
fn a_newcomer_is_no_canary() {
    let mut fleet = fleet(10, Disruption::DaemonRestart);
    fleet.run_until(20, |s| matches!(s, Stage::Wave { soak_until: Some(_), .. }));
    fleet.touch(|f| {
        let mut new = node(99, 1, Disruption::DaemonRestart);
        (new.desired, new.current) = (None, None);
        f.nodes.push(new);
    });
    for _ in 0..10 {
        fleet.tick();
    }
    assert!(fleet.node("n099").has(&revision("old")), "it has what the others have");
    fleet.run_until(1000, |s| *s == Stage::Complete);
    assert_eq!(fleet.have("new"), 11);
}

#[test]
fn rollouts_of_the_same_configs_share_their_budgets() {
    let (mut one, mut other) = (fleet(10, Disruption::Drain), fleet(10, Disruption::Drain));
    for f in [&mut one, &mut other] {
        f.rollout.strategy.max_unavailable = Share::Nodes(1);
        f.rollout.last_known_good = None;
    }
    let first = plan(&one.rollout, &one.nodes, 1000);
    assert!(matches!(first.actions[..], [Action::Tell { .. }]), "{first:?}");
    let taken = share(&one.rollout, &one.nodes, Some(&first), 1000);
    assert_eq!((taken.nodes, taken.away), (10, 1));
    other.rollout.beside = taken;
    assert_eq!(plan(&other.rollout, &other.nodes, 1000).actions, [], "the one is taken");
    other.rollout.strategy.max_unavailable = Share::Percent(10);
    assert_eq!(plan(&other.rollout, &other.nodes, 1000).actions.len(), 1, "10 % of both are two");
}

#[test]
fn a_known_bad_revision_is_never_begun() {
    let mut fleet = fleet(5, Disruption::None);
    fleet.rollout.bad.insert(revision("new"));
    fleet.run_until(5, |s| *s == Stage::RolledBack);
    assert_eq!(told(&fleet), 0);
}

#[test]
fn planning_again_from_the_same_view_changes_nothing() {
    let fleet = fleet(30, Disruption::Drain);
    let first = plan(&fleet.rollout, &fleet.nodes, 1000);
    assert_eq!(first, plan(&fleet.rollout, &fleet.nodes, 1000));
    assert!(matches!(first.actions[..], [Action::Tell { .. }]), "{first:?}");
}

#[test]
fn a_group_of_none_has_nothing_to_do() {
    let plan = plan(&fleet(0, Disruption::None).rollout, &[], 1000);
    assert_eq!((plan.stage, plan.actions, plan.look_again), (Stage::NoNodes, vec![], None));
}
