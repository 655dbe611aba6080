//! Operations that were ended from outside: the revision is not to blame, and they are begun again, but not for ever.
use super::*;

/// The last operation walked back, and not for what it was for.
fn interrupted(node: &mut Node, operation: u32) {
    let adoption = &mut node.facts.adoption;
    adoption.operation = Some(format!("adopt-{operation}"));
    adoption.message = Some("whoever did it has died".to_owned());
    adoption.interrupted = true;
}

#[test]
fn an_adopter_that_was_killed_is_followed_by_another_one_and_not_by_ever_more() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    node.checked(Ok(Disruption::Drain));
    node.granted(Disruption::Drain);
    for operation in 1..MAX_OPERATIONS {
        node.journal.observe(&node.facts);
        node.journal.begin("new", "", Begun::Adopt, node.now);
        interrupted(&mut node, operation);
        node.now += AGAIN;
        let plan = node.plan();
        assert!(matches!(plan.step, Step::Adopt { .. }), "{plan:?}");
        assert_eq!(plan.message.as_deref(), Some("it is tried again: whoever did it has died"));
    }
    node.journal.observe(&node.facts);
    node.journal.begin("new", "", Begun::Adopt, node.now);
    interrupted(&mut node, MAX_OPERATIONS);
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "NotAdopted", .. }), "{:?}", node.plan());
}

#[test]
fn one_whose_leave_is_over_meanwhile_asks_for_another() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    node.checked(Ok(Disruption::Drain));
    node.granted(Disruption::Drain);
    node.journal.begin("new", "", Begun::Adopt, node.now);
    interrupted(&mut node, 1);
    node.now = 2000;
    let plan = node.plan();
    assert_eq!((plan.phase, plan.asks), (Phase::AwaitingGrant, Some(Disruption::Drain)));
}

#[test]
fn so_is_a_return_and_a_kubelet_s_start_that_were_cut_short() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    let absent = Wanted { version: "0.1.0".to_owned(), absent: true, ..Wanted::default() };
    node.known.contents.insert("new".to_owned(), Content::Configuration(absent));
    node.granted(Disruption::Drain);
    node.journal.begin("new", "", Begun::Adopt, node.now);
    interrupted(&mut node, 1);
    node.now += AGAIN;
    assert!(matches!(node.plan().step, Step::GiveBack { .. }), "{:?}", node.plan());

    let mut node = Node::new(AdoptPhase::Adopted, Some("new"));
    let kubelet: berth_crds::KubeletConfig = serde_json::from_str(r#"{"maxPods": 70}"#).unwrap();
    let wanted = Wanted { version: "0.1.0".to_owned(), kubelet, ..Wanted::default() };
    node.known.contents.insert("new".to_owned(), Content::Configuration(wanted));
    node.granted(Disruption::KubeletRestart);
    node.journal.begin("new", "", Begun::Kubelet, node.now);
    interrupted(&mut node, 1);
    node.facts.adoption.kubelet_failed = true;
    assert!(matches!(node.plan().step, Step::ConfigureKubelet { .. }), "{:?}", node.plan());
    node.facts.adoption.interrupted = false;
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "KubeletNotWell", .. }), "{:?}", node.plan());
}
