//! Leave that is over when an operation is to begin, and operations that do not come to their first step: nothing of it is a revision's fault.
use super::*;
use crate::plan::MAX_TRIES;
use berth_crds::RuntimeConfigSpec;
use serde_json::{Value, json};

fn over() -> Option<Trouble> {
    Some(Trouble::Expired("grant new@2000: has expired 1 s ago".to_owned()))
}

/// A node of another runtime, and the revision that it is to be taken over with.
pub(super) fn foreign() -> (Case, String) {
    let case = Case::new();
    let name = case.revision(50);
    case.side.with(|world| {
        world.facts.adoption.phase = AdoptPhase::NotAdopted;
        world.facts.daemon = None;
    });
    (case, name)
}

/// What a node is to have, with leave for as much as that until one o'clock.
pub(super) fn with_leave(name: &str, disruption: Disruption) -> RuntimeNode {
    let mut object = object(name);
    let expires_at = "2026-01-01T01:00:00Z".to_owned();
    object.spec.grant = Some(Grant { revision: name.to_owned(), disruption, expires_at });
    object
}

impl Case {
    /// A revision of that configuration.
    fn configured(&self, spec: Value) -> String {
        let spec: RuntimeConfigSpec = serde_json::from_value(spec).unwrap();
        let content = RuntimeRevisionSpec::of_runtime("0.1.0", &spec);
        let name = content.name();
        self.side.with(|world| world.revisions.insert(name.clone(), content));
        name
    }

    /// An agent that knows that it is so many minutes past midnight.
    pub(super) fn agent_at(&self, minute: u32) -> Agent<Side, Side> {
        let agent = self.agent();
        agent.clock.hear(&at(minute));
        agent
    }

    pub(super) fn last(&self) -> RuntimeNodeStatus {
        self.side.with(|world| world.statuses.last().cloned()).unwrap()
    }
}

fn at(minute: u32) -> String {
    format!("Thu, 01 Jan 2026 00:{minute:02}:00 GMT")
}

fn current(agent: &Agent<Side, Side>) -> Option<String> {
    agent.journal.current.as_ref().map(|held| held.revision.clone())
}

#[tokio::test]
async fn leave_that_is_over_at_the_first_step_has_begun_nothing() {
    let (case, name) = foreign();
    let mut agent = case.agent_at(0);
    for _ in 0..2 * MAX_TRIES {
        case.side.with(|world| world.at_last = over());
        assert_eq!(agent.pass(with_leave(&name, Disruption::Drain)).await, SOON);
        assert!(agent.journal.attempt.is_none() && agent.journal.failed.is_none() && !agent.journal.crashes.expected);
    }
    agent.pass(object(&name)).await;
    let last = case.last();
    assert_eq!((last.phase, last.attempts, last.failed), (Phase::AwaitingGrant, 0, None), "it asks for another one");
    drop(agent);
    let mut agent = case.agent_at(0);
    assert!(agent.journal.attempt.is_none(), "the next agent knows it too");
    agent.pass(with_leave(&name, Disruption::Drain)).await;
    assert_eq!(current(&agent), Some(name), "the next leave is good for all of it");
}

#[tokio::test]
async fn tries_that_do_not_come_to_their_first_step_take_nothing_from_what_follows() {
    let (case, name) = foreign();
    let mut agent = case.agent();
    for minute in 0..2 * MAX_TRIES {
        agent.clock.hear(&at(minute));
        case.side.with(|world| world.at_last = Some(Trouble::Later("another operation is under way".to_owned())));
        agent.pass(with_leave(&name, Disruption::Drain)).await;
        let attempt = agent.journal.attempt.clone().unwrap();
        assert!(attempt.adopted && attempt.tries == 1, "{minute}: {attempt:?}");
    }
    agent.clock.hear(&at(50));
    agent.pass(with_leave(&name, Disruption::Drain)).await;
    assert_eq!((current(&agent), agent.journal.failed.clone()), (Some(name), None));
}

#[tokio::test]
async fn a_kubelet_is_not_started_anew_without_leave_because_its_leave_was_over() {
    let case = Case::new();
    let name = case.configured(json!({"kubelet": {"config": {"maxPods": 70}}}));
    // Somebody has taken the settings away again.
    case.side.with(|world| world.facts.daemon.as_mut().unwrap().configuration = Some(name.clone()));
    let mut agent = case.agent_at(0);
    agent.journal.commit(&name, 1);
    case.side.with(|world| world.at_last = over());
    agent.pass(with_leave(&name, Disruption::KubeletRestart)).await;
    assert!(agent.journal.attempt.is_none() && agent.journal.failed.is_none());
    agent.pass(object(&name)).await;
    assert_eq!((case.done(), case.last().phase), (Vec::new(), Phase::AwaitingGrant));
    agent.pass(with_leave(&name, Disruption::KubeletRestart)).await;
    assert_eq!(case.done(), [r#"kubelet {"maxPods":70} true"#]);
}

#[tokio::test]
async fn a_node_that_is_to_be_given_back_waits_for_the_next_leave() {
    let case = Case::new();
    let name = case.configured(json!({"state": "Absent"}));
    let mut agent = case.agent_at(0);
    case.side.with(|world| world.at_last = over());
    agent.pass(with_leave(&name, Disruption::Drain)).await;
    assert!(agent.journal.attempt.is_none() && agent.journal.failed.is_none());
    agent.pass(object(&name)).await;
    assert_eq!((case.done(), case.last().phase, case.last().attempts), (Vec::new(), Phase::AwaitingGrant, 0));
    agent.pass(with_leave(&name, Disruption::Drain)).await;
    assert_eq!(case.done(), ["give back"]);
}
