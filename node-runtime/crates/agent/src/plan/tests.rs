//! Ways of a node, step by step.
mod driver;
mod held;
mod interrupted;
mod place;

use super::*;
use crate::facts::{AdoptPhase, Daemon};
use crate::journal::{Begun, Failure, Refuser};
use crate::time;
use berth_crds::{Disruption, Grant};

struct Node {
    wish: RuntimeNodeSpec,
    journal: Journal,
    facts: Facts,
    known: Known,
    now: u64,
}

impl Node {
    fn new(phase: AdoptPhase, current: Option<&str>) -> Self {
        let mut node = Self {
            wish: RuntimeNodeSpec { desired_revision: Some("new".to_owned()), ..RuntimeNodeSpec::default() },
            journal: Journal::default(),
            facts: Facts { kubelet: Some(5), ..Facts::default() },
            known: Known::default(),
            now: 1000,
        };
        node.facts.adoption.phase = phase;
        node.facts.daemon = Some(Daemon {
            version: "0.1.0".to_owned(),
            configuration: current.map(str::to_owned),
            ..Daemon::default()
        });
        if let Some(current) = current {
            node.journal.commit(current, 1);
        }
        for name in ["new", "old"] {
            let wanted = Wanted { version: "0.1.0".to_owned(), ..Wanted::default() };
            node.known.contents.insert(name.to_owned(), Content::Configuration(wanted));
        }
        node
    }

    fn plan(&self) -> Plan {
        let Self { wish, journal, facts, known, now } = self;
        plan(&View { wish, journal, facts, known, now: *now, certain: true })
    }

    fn checked(&mut self, answer: Result<Disruption, String>) {
        let circumstances = Circumstances::of(&self.facts, self.wish.policy_revision.as_deref());
        let answer = answer.map_or_else(Answer::Refused, Answer::Fits);
        self.known.checks.insert(("new".to_owned(), circumstances), answer);
    }

    fn unfit(&mut self, order: &str) {
        let (why, order, at) = ("a//b".to_owned(), order.to_owned(), self.now);
        let circumstances = Circumstances::of(&self.facts, self.wish.policy_revision.as_deref());
        self.known.checks.insert(("new".to_owned(), circumstances), Answer::Unfit { why, order, at });
    }

    fn granted(&mut self, disruption: Disruption) {
        self.wish.grant = Some(Grant { revision: "new".to_owned(), disruption, expires_at: time::text(2000) });
    }
}

#[test]
fn a_node_is_not_taken_over_without_the_policies_that_it_is_to_enforce() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    // Nothing of Berth runs yet that could be told.
    node.facts.daemon = None;
    node.granted(Disruption::Drain);
    node.checked(Ok(Disruption::Drain));
    assert!(matches!(node.plan().step, Step::Adopt { .. }));
    node.wish.policy_revision = Some("policy-1".to_owned());
    let fetches = node.plan();
    assert_eq!((fetches.step, fetches.phase), (Step::Fetch("policy-1".to_owned()), Phase::AwaitingPolicies));
    node.known.away.insert("policy-1".to_owned(), "429".to_owned());
    let waits = node.plan();
    assert_eq!(waits.phase, Phase::AwaitingPolicies);
    assert!(waits.step == Step::Wait && waits.message.unwrap().contains("policy-1 cannot be had: 429"));
    for content in [Content::Unsupported("turbo".to_owned()), Content::Broken("turbo".to_owned())] {
        node.known.contents.insert("policy-1".to_owned(), content);
        let rests = node.plan();
        assert_eq!(rests.phase, Phase::AwaitingPolicies);
        assert!(rests.step == Step::Rest && rests.message.unwrap().contains("turbo"), "the revision is not to blame");
    }
    node.known.contents.insert("policy-1".to_owned(), Content::Policies("{}".to_owned()));
    let asks = node.plan();
    assert_eq!(asks.step, Step::Check("new".to_owned()), "what was said without them says nothing");
    assert_eq!(asks.phase, Phase::AwaitingPolicies, "but that the revision fits");
    node.checked(Ok(Disruption::Drain));
    assert!(matches!(node.plan().step, Step::Adopt { .. }));
    node.known.checks.clear();
    assert_eq!(node.plan().phase, Phase::Preparing, "nothing is known of the revision");
}

#[test]
fn policies_that_do_not_fit_are_asked_about_again_and_others_at_once() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    node.facts.daemon = None;
    node.granted(Disruption::Drain);
    for set in ["policy-1", "policy-2"] {
        node.known.contents.insert(set.to_owned(), Content::Policies("{}".to_owned()));
    }
    node.wish.policy_revision = Some("policy-1".to_owned());
    node.unfit("");
    let rests = node.plan();
    assert_eq!((rests.step, rests.phase), (Step::Rest, Phase::AwaitingPolicies));
    assert!(rests.message.unwrap().contains("policy-1: a//b"));
    let asks = |node: &Node, why: &str| {
        let plan = node.plan();
        assert_eq!((plan.step, plan.phase), (Step::Check("new".to_owned()), Phase::AwaitingPolicies), "{why}");
    };
    node.wish.desired_since = Some("later".to_owned());
    asks(&node, "another order");
    node.unfit("later");
    node.wish.policy_revision = Some("policy-2".to_owned());
    asks(&node, "another set");
    node.wish.policy_revision = Some("policy-1".to_owned());
    assert_eq!(node.plan().step, Step::Rest);
    node.now += POLICIES_AGAIN;
    asks(&node, "what was in their way may be gone");
    node.checked(Err("--config: is a directory".to_owned()));
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "Refused", .. }), "the revision itself is refused");
}

#[test]
fn a_node_is_taken_over_with_leave_only() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    assert_eq!(node.plan().step, Step::Check("new".to_owned()));
    node.checked(Ok(Disruption::Drain));
    assert_eq!((node.plan().step, node.plan().phase), (Step::Rest, Phase::AwaitingGrant));
    node.granted(Disruption::DaemonRestart);
    assert_eq!(node.plan().phase, Phase::AwaitingGrant, "for less");
    node.granted(Disruption::Drain);
    assert!(matches!(node.plan().step, Step::Adopt { expires: 2000, .. }));
    node.journal.begin("new", "", Begun::Adopt, 1000);
    node.facts.adoption.phase = AdoptPhase::Underway;
    assert_eq!(node.plan().step, Step::Wait);
    node.facts.adoption.phase = AdoptPhase::Adopted;
    node.checked(Ok(Disruption::Live));
    assert_eq!(node.plan().step, Step::Apply("new".to_owned()));
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("new".to_owned());
    }
    assert_eq!(node.plan().step, Step::Commit("new".to_owned()));
    node.journal.commit("new", 1000);
    assert_eq!((node.plan().step, node.plan().phase), (Step::Rest, Phase::Idle));
}

#[test]
fn an_adoption_that_walked_back_is_given_up_with_its_reason() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    node.checked(Ok(Disruption::Drain));
    node.granted(Disruption::Drain);
    node.journal.begin("new", "", Begun::Adopt, 1000);
    node.facts.adoption.operation = Some("adopt-1".to_owned());
    node.facts.adoption.message = Some("the test sandbox did not start".to_owned());
    let Step::GiveUp { message, .. } = node.plan().step else { panic!("{:?}", node.plan()) };
    assert!(message.contains("test sandbox"));
}

/// A daemon that is busy for some seconds, or a disk that is full for some minutes, is not a revision that cannot be had.
#[test]
fn a_step_that_did_not_come_off_is_not_tried_again_at_every_look() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.checked(Ok(Disruption::Live));
    for _ in 0..MAX_TRIES {
        assert_eq!(node.plan().step, Step::Apply("new".to_owned()));
        node.journal.begin("new", "", Begun::Apply, node.now);
        node.known.trouble = None;
        assert_eq!(node.plan().step, Step::Apply("new".to_owned()), "nothing was in its way");
        node.known.trouble = Some("no space left on device".to_owned());
        let plan = node.plan();
        assert_eq!((plan.step, plan.message.as_deref()), (Step::Wait, Some("no space left on device")));
        node.now += AGAIN;
    }
    node.journal.begin("new", "", Begun::Apply, node.now);
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "TooManyAttempts", .. }));
}

#[test]
fn an_operation_that_did_not_begin_is_begun_again_whatever_the_one_before_has_said() {
    let mut node = Node::new(AdoptPhase::NotAdopted, None);
    node.checked(Ok(Disruption::Drain));
    node.granted(Disruption::Drain);
    node.facts.adoption.operation = Some("adopt-1".to_owned());
    node.facts.adoption.message = Some("yesterday the test sandbox did not start".to_owned());
    for _ in 0..=MAX_TRIES {
        node.journal.observe(&node.facts);
        node.journal.begin("new", "", Begun::Adopt, node.now);
        node.known.trouble = Some("another operation is under way".to_owned());
        let plan = node.plan();
        assert_eq!((plan.step, plan.message.as_deref()), (Step::Wait, Some("another operation is under way")));
        node.now += AGAIN;
        assert!(matches!(node.plan().step, Step::Adopt { .. }), "{:?}", node.plan());
    }
    node.facts.adoption.operation = Some("adopt-2".to_owned());
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "NotAdopted", .. }), "this one is of the attempt");
    node.facts.adoption.operation = Some("adopt-1".to_owned());
    node.now = 2000;
    assert_eq!(node.plan().phase, Phase::AwaitingGrant, "the leave is over");
}

#[test]
fn what_is_refused_leaves_the_old_one_and_is_tried_again_by_another_order_only() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.checked(Err("spec.runtime.pidsLimit: is impossible".to_owned()));
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "Refused", .. }));
    let failure = Failure { revision: "new".to_owned(), ..Failure::default() };
    node.journal.give_up(failure, false);
    let plan = node.plan();
    assert_eq!((plan.step, plan.phase), (Step::Rest, Phase::Idle), "it has what it goes back to");
    node.known.checks.clear();
    node.wish.desired_since = Some("later".to_owned());
    assert_eq!(node.plan().step, Step::Check("new".to_owned()));
}

#[test]
fn a_node_that_is_not_well_goes_back_and_then_rests() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.journal.begin("new", "", Begun::Apply, 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("new".to_owned());
        daemon.troubles = vec!["NetworkReady".to_owned()];
    }
    assert_eq!((node.plan().step, node.plan().phase), (Step::Wait, Phase::Verifying));
    node.now += PATIENCE + 1;
    assert_eq!(node.plan().step, Step::Wait, "it is so since this look: what took long was the step");
    node.known.unwell = PATIENCE + 1;
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "NotWell", .. }));
    node.journal.begin("new", "", Begun::Apply, node.now);
    assert_eq!(node.plan().step, Step::Wait, "it was so before");
    let failure = |name: &str| Failure { revision: name.to_owned(), ..Failure::default() };
    node.journal.give_up(failure("new"), false);
    assert_eq!(node.plan().step, Step::Check("old".to_owned()), "back, without leave");
    node.journal.give_up(failure("old"), true);
    assert_eq!(node.plan().phase, Phase::Quarantined);
}

#[test]
fn what_does_not_pass_by_itself_goes_back_within_seconds() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.journal.begin("new", "", Begun::Apply, 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("new".to_owned());
        daemon.troubles = vec!["spec.metrics.address: is in use".to_owned()];
        daemon.lasting = true;
    }
    (node.now, node.known.unwell) = (node.now + LASTING, LASTING);
    assert_eq!(node.plan().step, Step::Wait, "it may be said of the configuration before");
    (node.now, node.known.unwell) = (node.now + 1, LASTING + 1);
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "NotWell", .. }));
}

#[test]
fn a_daemon_that_came_up_without_the_revision_goes_back_at_once() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.checked(Ok(Disruption::DaemonRestart));
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.not_started = Some(("new".to_owned(), "no systemd".to_owned()));
    }
    node.granted(Disruption::DaemonRestart);
    assert_eq!(node.plan().step, Step::Apply("new".to_owned()), "that was another attempt");
    node.journal.begin("new", "", Begun::Apply, 1000);
    node.journal.begin("new", "", Begun::Restart, 1000);
    match node.plan().step {
        Step::GiveUp { reason, message, .. } => assert!(reason == "NotStarted" && message.contains("no systemd")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_that_is_on_its_way_is_waited_for_and_one_that_is_not_is_refused() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.facts.versions = vec!["0.1.0".to_owned(), "0.2.0".to_owned()];
    let wants = |node: &mut Node, version: &str| {
        let wanted = Wanted { version: version.to_owned(), ..Wanted::default() };
        node.known.contents.insert("new".to_owned(), Content::Configuration(wanted));
        node.plan()
    };
    let plan = wants(&mut node, "0.3.0");
    assert!(plan.step == Step::Wait && plan.message.is_some_and(|m| m.contains("0.3.0 is not on this node yet")));
    assert!(matches!(wants(&mut node, "0.1.5").step, Step::GiveUp { reason: "Refused", .. }));
    assert_eq!(wants(&mut node, "0.2.0").phase, Phase::AwaitingGrant);
    node.facts.versions.push("0.3.0".to_owned());
    assert_eq!(wants(&mut node, "0.3.0").phase, Phase::AwaitingGrant, "now it is there");
}

#[test]
fn a_version_that_does_not_come_up_makes_way_for_the_one_before() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.journal.begin("new", "", Begun::Restart, 1000);
    node.facts.daemon = None;
    assert_eq!(node.plan().step, Step::Wait, "it may only be slow");
    node.journal.give_up(Failure { revision: "new".to_owned(), ..Failure::default() }, false);
    assert_eq!(node.plan().step, Step::Restart { revision: "old".to_owned(), version: "0.1.0".to_owned() });
    node.journal.begin("old", "", Begun::Restart, 1000);
    assert_eq!(node.plan().step, Step::Wait, "once");
    (node.now, node.known.unwell) = (node.now + PATIENCE + 1, PATIENCE + 1);
    assert!(matches!(node.plan().step, Step::GiveUp { .. }));
}

#[test]
fn restarts_need_leave_and_end() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("new"));
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.pending = vec!["spec.network.mode".to_owned()];
    }
    assert_eq!(node.plan().phase, Phase::AwaitingGrant);
    node.granted(Disruption::DaemonRestart);
    assert!(matches!(node.plan().step, Step::Restart { .. }));
    for _ in 0..MAX_RESTARTS {
        node.journal.begin("new", "", Begun::Restart, 1000);
    }
    assert!(matches!(node.plan().step, Step::GiveUp { reason: "NotRestarted", .. }));
}

#[test]
fn settings_of_the_kubelet_come_last_and_need_leave() {
    let config = |json: &str| serde_json::from_str::<berth_crds::KubeletConfig>(json).unwrap();
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    let kubelet = config(r#"{"maxPods": 70}"#);
    let wanted = Wanted { version: "0.1.0".to_owned(), kubelet: kubelet.clone(), ..Wanted::default() };
    node.known.contents.insert("new".to_owned(), Content::Configuration(wanted));
    node.checked(Ok(Disruption::KubeletRestart));
    node.granted(Disruption::DaemonRestart);
    assert_eq!(node.plan().phase, Phase::AwaitingGrant, "that is less");
    node.granted(Disruption::KubeletRestart);
    assert_eq!(node.plan().step, Step::Apply("new".to_owned()));
    node.journal.begin("new", "", Begun::Apply, 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("new".to_owned());
        daemon.troubles = vec!["NetworkReady".to_owned()];
    }
    assert_eq!(node.plan().step, Step::Wait, "a node that is not well is left alone");
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.troubles.clear();
    }
    let Step::ConfigureKubelet { grant: Some((_, 2000)), .. } = node.plan().step else { panic!("{:?}", node.plan()) };
    node.wish.grant = None;
    assert!(matches!(node.plan().step, Step::ConfigureKubelet { grant: None, .. }), "what has begun is finished");
    node.journal.begin("new", "", Begun::Kubelet, 1000);
    node.facts.adoption.kubelet = Some(kubelet.clone());
    assert_eq!(node.plan().step, Step::Commit("new".to_owned()));

    node.facts.adoption.kubelet = Some(config("{}"));
    (node.facts.adoption.kubelet_failed, node.facts.adoption.message) = (true, Some("the kubelet ended".to_owned()));
    assert!(matches!(node.plan().step, Step::ConfigureKubelet { .. }), "that was another attempt");
    node.facts.adoption.operation = Some("configure-1".to_owned());
    match node.plan().step {
        Step::GiveUp { reason, message, .. } => {
            assert_eq!((reason, message.as_str()), ("KubeletNotWell", "the kubelet ended"))
        }
        other => panic!("{other:?}"),
    }
    // On the way back it is the former settings that are wanted, without anybody's leave.
    node.journal.give_up(Failure { revision: "new".to_owned(), ..Failure::default() }, false);
    node.facts.adoption.kubelet = Some(kubelet);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("old".to_owned());
    }
    assert_eq!(node.plan().step, Step::ConfigureKubelet { revision: "old".to_owned(), restart: false, grant: None });
}

#[test]
fn a_daemon_that_nobody_would_start_again_is_supervised_first() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("new"));
    node.facts.unsupervised = true;
    assert_eq!(node.plan().step, Step::Supervise);
    node.wish.hold = true;
    assert_eq!(node.plan().step, Step::Supervise, "it changes nothing of what the node has");
    node.facts.daemon = None;
    assert_eq!(node.plan().step, Step::Supervise);
    node.facts.adoption.phase = AdoptPhase::Underway;
    assert_eq!(node.plan().step, Step::Wait, "whoever is at it sees to that");
    (node.facts.adoption.phase, node.wish.hold) = (AdoptPhase::NotAdopted, false);
    assert_ne!(node.plan().step, Step::Supervise, "there is nothing to supervise");
}

#[test]
fn policies_wait_for_nobody_and_hold_up_nothing() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("new"));
    node.wish.hold = true;
    node.wish.policy_revision = Some("p".to_owned());
    assert_eq!(node.plan().step, Step::Fetch("p".to_owned()));
    node.known.contents.insert("p".to_owned(), Content::Policies("{}".to_owned()));
    assert_eq!(node.plan().step, Step::ApplyPolicies("p".to_owned()), "a hold is none of theirs");
    node.journal.refused_policies = Some(Failure { revision: "p".to_owned(), at: 1000, ..Failure::default() });
    node.journal.refused_by = Refuser::of(&node.facts);
    assert_eq!(node.plan().step, Step::Rest);
}

#[test]
fn a_set_of_policies_that_was_refused_is_tried_again_by_another_daemon_and_every_now_and_then() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("new"));
    node.wish.policy_revision = Some("p".to_owned());
    node.known.contents.insert("p".to_owned(), Content::Policies("{}".to_owned()));
    node.journal.refused_policies = Some(Failure { revision: "p".to_owned(), at: 1000, ..Failure::default() });
    assert_eq!(node.plan().step, Step::ApplyPolicies("p".to_owned()), "a former agent has not said by whom");
    node.journal.refused_by = Refuser::of(&node.facts);
    assert_eq!(node.plan().step, Step::Rest);
    let changes: [fn(&mut Daemon); 3] = [
        |daemon| daemon.version = "0.2.0".to_owned(),
        |daemon| daemon.configuration = Some("other".to_owned()),
        |daemon| daemon.pid += 1,
    ];
    for change in changes {
        let before = node.facts.clone();
        change(node.facts.daemon.as_mut().unwrap());
        assert_eq!(node.plan().step, Step::ApplyPolicies("p".to_owned()), "{:?}", node.facts.daemon);
        node.facts = before;
    }
    node.now += POLICIES_AGAIN - 1;
    assert_eq!(node.plan().step, Step::Rest);
    node.now += 1;
    assert_eq!(node.plan().step, Step::ApplyPolicies("p".to_owned()), "what it lacked may be there");
}

#[test]
fn a_node_that_was_given_back_forgets_what_it_was_told() {
    let mut node = Node::new(AdoptPhase::Returned, Some("new"));
    let absent = Wanted { absent: true, version: "0.1.0".to_owned(), ..Wanted::default() };
    node.known.contents.insert("new".to_owned(), Content::Configuration(absent));
    node.wish.policy_revision = Some("policies".to_owned());
    node.known.contents.insert("policies".to_owned(), Content::Policies("{}".to_owned()));
    node.facts.applied = true;
    assert_eq!(node.plan().step, Step::Release, "and is given no policies again");
    node.facts.applied = false;
    assert_eq!((node.plan().step, node.plan().phase), (Step::Rest, Phase::Idle));
}

#[test]
fn a_node_that_had_no_other_runtime_is_not_given_back() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.facts.adoption.native = true;
    let absent = Wanted { absent: true, version: "0.1.0".to_owned(), ..Wanted::default() };
    node.known.contents.insert("new".to_owned(), Content::Configuration(absent));
    match node.plan().step {
        Step::GiveUp { reason, message, .. } => {
            assert!(reason == "NotReturned" && message.contains("from the beginning"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_that_interrupts_begins_by_the_nodes_own_clock() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    node.checked(Ok(Disruption::DaemonRestart));
    node.granted(Disruption::DaemonRestart);
    let Node { wish, journal, facts, known, now } = &node;
    let view = View { wish, journal, facts, known, now: *now, certain: false };
    assert_eq!(plan(&view).phase, Phase::AwaitingGrant);
    assert_eq!(plan(&View { certain: true, ..view }).step, Step::Apply("new".to_owned()));
}

#[test]
fn credentials_come_before_what_names_them_and_again_for_each_daemon() {
    let mut node = Node::new(AdoptPhase::Adopted, Some("old"));
    let named = berth_crds::SecretCredential { name: "team".to_owned(), sha256: "1".repeat(64) };
    let wanted = Wanted { credentials: vec![named.clone()], version: "0.1.0".to_owned(), ..Wanted::default() };
    node.known.contents.insert("new".to_owned(), Content::Configuration(wanted));
    assert_eq!(node.plan().step, Step::HandOver("new".to_owned()));
    node.known.lacking.insert("new".to_owned(), "no such key".to_owned());
    assert!(matches!(node.plan().step, Step::GiveUp { .. }), "it cannot be had");
    node.known.lacking.clear();
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.credentials = vec![named];
    }
    assert_eq!(node.plan().step, Step::Check("new".to_owned()));
    node.journal.commit("new", 1000);
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.configuration = Some("new".to_owned());
    }
    assert_eq!((node.plan().step, node.plan().phase), (Step::Rest, Phase::Idle));
    if let Some(daemon) = &mut node.facts.daemon {
        daemon.credentials.clear();
    }
    assert_eq!(node.plan().step, Step::HandOver("new".to_owned()), "the daemon was restarted");
    node.known.lacking.insert("new".to_owned(), "no such key".to_owned());
    assert_eq!((node.plan().step, node.plan().phase), (Step::Rest, Phase::Verifying), "what is applied stays");
}
