//! Nodes that get another cgroup driver: the daemon, then the kubelet, and the way back from the middle of it.
use super::*;

/// What the daemon of a node says of itself in the middle of a change of its cgroup driver from `systemd`.
fn in_mid_change(driver: &str, configuration: &str) -> Node {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.facts.kubelet = Some(5);
    for (driver, configuration) in [("systemd", "old"), (driver, configuration)] {
        if let Some(daemon) = &mut node.facts.daemon {
            (daemon.cgroup_driver, daemon.configuration) = (driver.to_owned(), Some(configuration.to_owned()));
        }
        node.journal.observe(&node.facts.clone());
    }
    node
}

#[test]
fn what_was_half_done_is_undone_before_leave_is_asked_for() {
    let mut node = in_mid_change("cgroupfs", "half");
    node.journal.begin("half", "", Begun::Restart, 1000);
    // Taken back: the node is told to have what it had.
    node.wish.desired_revision = Some("old".to_owned());
    node.wish.desired_since = Some("later".to_owned());
    let drains = |node: &mut Node, revision: &str| {
        let circumstances = Circumstances::of(&node.facts, None);
        node.known.checks.insert((revision.to_owned(), circumstances), Answer::Fits(Disruption::Drain));
    };
    drains(&mut node, "old");
    assert_eq!(node.plan().step, Step::Apply("old".to_owned()), "under the leave that it was begun under");
    // Something else in its place: not from the middle of another one.
    node.wish.desired_revision = Some("new".to_owned());
    drains(&mut node, "new");
    assert_eq!((node.plan().step, node.plan().phase), (Step::Apply("old".to_owned()), Phase::RollingBack));
    node.journal.begin("old", "later", Begun::Apply, 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("old".to_owned());
        daemon.pending = vec!["spec.runtime.cgroupManager".to_owned()];
    }
    drains(&mut node, "new");
    assert!(matches!(node.plan().step, Step::Restart { revision, .. } if revision == "old"));
    if let Some(daemon) = &mut node.facts.daemon {
        (daemon.cgroup_driver, daemon.pending) = ("systemd".to_owned(), Vec::new());
    }
    drains(&mut node, "new");
    assert_eq!(node.plan().step, Step::Commit("old".to_owned()), "the kubelet never went by the other one");
    node.journal.commit("old", 1001);
    node.checked(Ok(Disruption::Live));
    assert_eq!(node.plan().step, Step::Apply("new".to_owned()));
    // For less it waits where it is: no daemon is restarted twice for it.
    node.journal.begin("half", "", Begun::Apply, 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("half".to_owned());
    }
    node.checked(Ok(Disruption::DaemonRestart));
    assert_eq!(node.plan().asks, Some(Disruption::DaemonRestart));
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("old".to_owned());
    }
    // Nothing of it is in force: there is nothing to undo.
    node.journal.begin("half", "", Begun::Apply, 1000);
    node.checked(Ok(Disruption::Drain));
    assert_eq!(node.plan().phase, Phase::AwaitingGrant);
}

#[test]
fn a_kubelet_that_does_not_come_up_under_a_driver_gets_the_other_one_back() {
    let mut node = in_mid_change("cgroupfs", "new");
    node.granted(Disruption::Drain);
    node.journal.begin("new", "", Begun::Kubelet, 1000);
    // It is put back, on a daemon that still has the other driver.
    node.facts.adoption.phase = AdoptPhase::Underway;
    node.facts.adoption.operation = Some("configure-1".to_owned());
    (node.facts.adoption.kubelet_failed, node.facts.kubelet) = (true, None);
    node.facts.adoption.message = Some("the kubelet ended".to_owned());
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "KubeletNotWell", .. }), "{:?}", node.plan());
    node.journal.give_up(Failure { revision: "new".to_owned(), ..Failure::default() }, false);
    let circumstances = Circumstances::of(&node.facts, None);
    node.known.checks.insert(("old".to_owned(), circumstances), Answer::Fits(Disruption::Drain));
    for phase in [AdoptPhase::Underway, AdoptPhase::Left] {
        node.facts.adoption.phase = phase;
        assert_eq!(node.plan().step, Step::Apply("old".to_owned()), "{phase:?}");
    }
    // With the driver of before, the kubelet comes up: whoever puts it back is waited for.
    if let Some(daemon) = &mut node.facts.daemon {
        (daemon.cgroup_driver, daemon.configuration) = ("systemd".to_owned(), Some("old".to_owned()));
    }
    node.facts.adoption.phase = AdoptPhase::Underway;
    assert_eq!(node.plan().step, Step::Wait);
    node.facts.adoption.phase = AdoptPhase::Left;
    assert_eq!(node.plan().step, Step::Recover);
}

#[test]
fn a_kubelet_of_the_other_driver_is_not_started_anew_among_pods() {
    let mut node = in_mid_change("cgroupfs", "new");
    node.journal.begin("new", "", Begun::Apply, 1000);
    let asks = node.plan();
    assert_eq!((asks.phase, asks.asks), (Phase::AwaitingGrant, Some(Disruption::Drain)));
    node.journal.emptied(true);
    assert!(matches!(node.plan().step, Step::ConfigureKubelet { restart: true, .. }));
}

#[test]
fn another_cgroup_driver_takes_a_drain_and_another_start_of_the_kubelet() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    let daemon = |node: &mut Node, driver: &str, configuration: &str, pending: &[&str]| {
        if let Some(daemon) = &mut node.facts.daemon {
            daemon.cgroup_driver = driver.to_owned();
            daemon.configuration = Some(configuration.to_owned());
            daemon.pending = pending.iter().map(|field| (*field).to_owned()).collect();
        }
        node.journal.observe(&node.facts.clone());
    };
    daemon(&mut node, "systemd", "old", &[]);
    node.checked(Ok(Disruption::Drain));
    node.granted(Disruption::KubeletRestart);
    assert_eq!(node.plan().phase, Phase::AwaitingGrant, "that is less");
    node.granted(Disruption::Drain);
    assert_eq!(node.plan().step, Step::Apply("new".to_owned()));
    node.journal.begin("new", "", Begun::Apply, 1000);
    daemon(&mut node, "systemd", "new", &["spec.runtime.cgroupManager"]);
    assert!(matches!(node.plan().step, Step::Restart { .. }), "the daemon first: the kubelet asks it");
    node.journal.begin("new", "", Begun::Restart, 1000);
    daemon(&mut node, "cgroupfs", "new", &[]);
    node.wish.grant = None;
    assert_eq!(node.plan().asks, Some(Disruption::Drain), "nothing says that the node was emptied");
    node.granted(Disruption::Drain);
    node.journal.emptied(true);
    assert!(matches!(node.plan().step, Step::ConfigureKubelet { restart: true, grant: Some(_), .. }));
    node.journal.begin("new", "", Begun::Kubelet, 1000);
    node.facts.kubelet = None;
    assert_eq!(node.plan().step, Step::Wait, "it starts");
    node.facts.kubelet = Some(6);
    daemon(&mut node, "cgroupfs", "new", &[]);
    assert_eq!(node.plan().step, Step::Commit("new".to_owned()));

    // One that fails takes both back, without anybody's leave.
    node.journal.give_up(Failure { revision: "new".to_owned(), ..Failure::default() }, false);
    daemon(&mut node, "systemd", "old", &[]);
    assert_eq!(node.plan().step, Step::ConfigureKubelet { revision: "old".to_owned(), restart: true, grant: None });
    node.facts.kubelet = Some(7);
    daemon(&mut node, "systemd", "old", &[]);
    assert!(!matches!(node.plan().step, Step::ConfigureKubelet { .. }));
}
