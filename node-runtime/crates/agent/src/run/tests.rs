//! The loop around plans, over a node and an API server that are values in memory: what is written when, and what is not begun.
mod leave;
mod not_asked_for;
mod place;

use super::*;
use crate::backoff::MOST;
use crate::credential::Credential;
use crate::facts::{AdoptPhase, Adoption, Daemon};
use crate::journal::Begun;
use crate::node::{Permit, Policies, Trouble};
use crate::plan::{MAX_TRIES, PATIENCE, Wanted};
use berth_crds::{Disruption, Grant, Phase, RuntimeNodeSpec, RuntimeRevisionSpec, SecretCredential};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A node on Berth, and the API server: what they have, and what was done to them.
#[derive(Default)]
struct World {
    revisions: BTreeMap<String, RuntimeRevisionSpec>,
    facts: Facts,
    /// What the daemon refuses to apply, and a node to be taken over with.
    refuses: Option<&'static str>,
    /// What keeps the next operation from beginning.
    at_last: Option<Trouble>,
    /// Why the node cannot say now what it could have.
    busy: Option<&'static str>,
    /// Why the node could have nothing, as it says where it is asked before.
    cannot: Option<Trouble>,
    api_away: bool,
    done: Vec<String>,
    statuses: Vec<RuntimeNodeStatus>,
}

#[derive(Clone, Default)]
struct Side(Arc<Mutex<World>>);

impl Side {
    fn with<T>(&self, what: impl FnOnce(&mut World) -> T) -> T {
        what(&mut self.0.lock().unwrap())
    }

    fn begins(&self) -> Result<(), Trouble> {
        self.with(|world| world.at_last.take()).map_or(Ok(()), Err)
    }

    fn does(&self, what: &str) -> Result<(), Trouble> {
        self.with(|world| world.done.push(what.to_owned()));
        Ok(())
    }
}

impl NodeSide for Side {
    async fn look(&self) -> Facts {
        self.with(|world| world.facts.clone())
    }

    async fn check(
        &self,
        _revision: &str,
        _wanted: &Wanted,
        foreign: bool,
        policies: Option<Policies<'_>>,
    ) -> Result<Disruption, Trouble> {
        if let Some(why) = self.with(|world| world.busy) {
            return Err(Trouble::Later(why.to_owned()));
        }
        if let Some(set) = policies.filter(|_| foreign) {
            self.does(&format!("check with {}", set.revision))?;
            if let Some(why) = self.with(|world| world.refuses) {
                return Err(Trouble::Unfit(why.to_owned()));
            }
        }
        self.with(|world| world.cannot.clone()).map_or(Ok(Disruption::Live), Err)
    }

    async fn apply(&self, revision: &str, _json: &str) -> Result<(), Trouble> {
        if let Some(why) = self.with(|world| world.refuses) {
            return Err(Trouble::Refused(why.to_owned()));
        }
        self.with(|world| {
            let daemon = world.facts.daemon.as_mut().unwrap();
            if revision.starts_with("policy-") {
                daemon.policies = Some(revision.to_owned());
            } else {
                daemon.configuration = Some(revision.to_owned());
            }
        });
        self.does(&format!("apply {revision}"))
    }

    async fn hand_over(&self, credentials: Vec<Credential>) -> Result<(), Trouble> {
        self.does(&format!("hand over {}", credentials.len()))
    }

    async fn restart(&self, version: &str) -> Result<(), Trouble> {
        self.does(&format!("restart {version}"))
    }

    async fn adopt(
        &self,
        revision: &str,
        wanted: &Wanted,
        policies: Option<Policies<'_>>,
        _permit: Permit<'_>,
    ) -> Result<(), Trouble> {
        self.begins()?;
        let policies = policies.map(|set| set.revision.to_owned());
        self.with(|world| {
            world.facts.adoption.phase = AdoptPhase::Adopted;
            let (version, configuration) = (wanted.version.clone(), Some(revision.to_owned()));
            world.facts.daemon = Some(Daemon { version, configuration, policies, pid: 7, ..Daemon::default() });
        });
        self.does(&format!("adopt with {revision}: {}", wanted.json))
    }

    async fn give_back(&self, _permit: Permit<'_>) -> Result<(), Trouble> {
        self.begins()?;
        self.does("give back")
    }

    async fn configure_kubelet(
        &self,
        wanted: &Wanted,
        _restart: bool,
        permit: Option<Permit<'_>>,
    ) -> Result<(), Trouble> {
        self.begins()?;
        let settings = &wanted.kubelet;
        self.with(|world| world.facts.adoption.kubelet = Some(settings.clone()));
        self.does(&format!("kubelet {} {}", serde_json::to_string(settings).unwrap(), permit.is_some()))
    }

    async fn release(&self) -> Result<(), Trouble> {
        self.does("release")
    }

    async fn supervise(&self) -> Result<(), Trouble> {
        self.with(|world| world.facts.unsupervised = false);
        self.does("supervise")
    }

    async fn recover(&self) -> Result<(), Trouble> {
        self.does("recover")
    }
}

impl ClusterSide for Side {
    async fn revision(&self, name: &str) -> Result<RuntimeRevisionSpec, String> {
        self.with(|world| match world.revisions.get(name) {
            _ if world.api_away => Err("connection refused".to_owned()),
            found => found.cloned().ok_or_else(|| "not found".to_owned()),
        })
    }

    async fn credentials(&self, _wanted: &[SecretCredential]) -> Result<Vec<Credential>, Trouble> {
        Ok(Vec::new())
    }

    async fn report(&self, _node: &str, status: &RuntimeNodeStatus) -> Result<(), String> {
        self.with(|world| {
            if world.api_away {
                return Err("429 Too Many Requests".to_owned());
            }
            world.statuses.push(status.clone());
            Ok(())
        })
    }
}

struct Case {
    side: Side,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let side = Side::default();
        side.with(|world| {
            world.facts = Facts {
                boot_id: "b".to_owned(),
                adoption: Adoption { phase: AdoptPhase::Adopted, ..Adoption::default() },
                daemon: Some(Daemon { version: "0.1.0".to_owned(), pid: 7, ..Daemon::default() }),
                kubelet: Some(5),
                ..Facts::default()
            };
        });
        Self { side, dir: tempfile::tempdir().unwrap() }
    }

    fn agent(&self) -> Agent<Side, Side> {
        let store = Store::open(self.dir.path()).unwrap();
        Agent::new(self.side.clone(), self.side.clone(), store, Clock::default(), Metrics::new("0").unwrap())
    }

    /// A revision that the API server has.
    fn revision(&self, limit: u64) -> String {
        let spec = serde_json::from_value(serde_json::json!({"runtime": {"pidsLimit": limit}})).unwrap();
        let content = RuntimeRevisionSpec::of_runtime("0.1.0", &spec);
        let name = content.name();
        self.side.with(|world| world.revisions.insert(name.clone(), content));
        name
    }

    fn done(&self) -> Vec<String> {
        self.side.with(|world| std::mem::take(&mut world.done))
    }
}

fn object(revision: &str) -> RuntimeNode {
    let spec = RuntimeNodeSpec { desired_revision: Some(revision.to_owned()), ..RuntimeNodeSpec::default() };
    RuntimeNode::new("node", spec)
}

#[tokio::test]
async fn a_node_of_the_control_plane_is_taken_where_the_operator_says_so() {
    let case = Case::new();
    let name = case.revision(50);
    let mut agent = case.agent();
    agent.fetch(&name).await.unwrap();
    let mut object = object(&name);
    for (told, may) in [(Some(true), true), (Some(false), false), (None, true)] {
        object.spec.control_plane = told;
        assert_eq!(agent.wanted(&object, &name).unwrap().control_plane, may, "{told:?}");
    }
}

#[tokio::test]
async fn a_revision_is_applied_once_and_a_status_is_written_on_change_alone() {
    let case = Case::new();
    let name = case.revision(50);
    let mut agent = case.agent();
    let mut object = object(&name);
    assert_eq!(agent.pass(object.clone()).await, SELDOM);
    assert_eq!(case.done(), [format!("apply {name}")]);
    let last = case.side.with(|world| world.statuses.last().cloned()).unwrap();
    assert_eq!((last.phase, last.current_revision.as_deref()), (Phase::Idle, Some(name.as_str())));
    let count = case.side.with(|world| world.statuses.len());
    // An object that is older than what was written last, and one that has it.
    agent.pass(object.clone()).await;
    object.status = Some(last);
    agent.pass(object).await;
    assert_eq!((case.done().len(), case.side.with(|world| world.statuses.len())), (0, count));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_else_wrote_is_written_again() {
    let case = Case::new();
    let name = case.revision(50);
    let mut agent = case.agent();
    let mut object = object(&name);
    agent.pass(object.clone()).await;
    let said = || case.side.with(|world| (world.statuses.len(), world.statuses.last().cloned().unwrap()));
    let (count, mine) = said();
    object.status = Some(RuntimeNodeStatus { current_revision: Some("other".to_owned()), ..mine.clone() });
    agent.pass(object.clone()).await;
    assert_eq!(said().0, count, "it may be what was there before");
    tokio::time::advance(ECHOES).await;
    agent.pass(object.clone()).await;
    assert_eq!(said(), (count + 1, mine.clone()));
    agent.pass(object.clone()).await;
    assert_eq!(said().0, count + 1, "and that takes its time as well");
    object.status = Some(mine);
    tokio::time::advance(ECHOES).await;
    agent.pass(object).await;
    assert_eq!(said().0, count + 1, "nobody has changed it");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_keeps_nobody_from_going_on() {
    let case = Case::new();
    let name = case.revision(50);
    let mut agent = case.agent();
    // It was fetched before; the journal says that it was begun.
    agent.fetch(&name).await.unwrap();
    agent.journal.begin(&name, "", Begun::Apply, 1);
    agent.keep();
    agent.see(&object(&name));
    drop(agent);
    case.side.with(|world| world.api_away = true);
    let mut agent = case.agent();
    let kept = agent.object(Seen::Nothing).unwrap();
    let pause = agent.pass(kept).await;
    assert_eq!(case.done(), [format!("apply {name}")], "what was begun is finished");
    assert!(pause <= MOST && agent.reporting.rest().is_some(), "the report waits");
    assert!(agent.journal.attempt.is_none());
    assert!(agent.object(Seen::Nothing).is_none(), "nothing else is begun by what was seen yesterday");
    case.side.with(|world| world.api_away = false);
    agent.pass(object(&name)).await;
    assert_eq!(case.side.with(|world| world.statuses.len()), 0, "it is not asked again at once");
    tokio::time::advance(MOST).await;
    agent.pass(object(&name)).await;
    assert_eq!(case.side.with(|world| world.statuses.len()), 1);
}

#[tokio::test]
async fn without_its_object_or_with_one_that_cannot_be_read_nothing_is_done() {
    let case = Case::new();
    let name = case.revision(50);
    let mut agent = case.agent();
    agent.pass(object(&name)).await;
    case.done();
    assert!(agent.object(Seen::Gone).is_none());
    assert!(agent.object(Seen::Unreadable("later".to_owned())).is_none());
    assert_eq!(agent.journal.current.as_ref().map(|held| held.revision.clone()), Some(name));
}

#[tokio::test]
async fn a_refusal_is_told_and_the_former_is_kept() {
    let case = Case::new();
    let (good, bad) = (case.revision(50), case.revision(60));
    let mut agent = case.agent();
    agent.pass(object(&good)).await;
    case.side.with(|world| world.refuses = Some("pids.max: out of range"));
    agent.pass(object(&bad)).await;
    let last = case.side.with(|world| world.statuses.last().cloned()).unwrap();
    let failed = last.failed.unwrap();
    assert_eq!((failed.revision, failed.reason.as_str()), (bad.clone(), "Refused"));
    assert_eq!(last.current_revision.as_deref(), Some(good.as_str()));
    case.side.with(|world| world.refuses = None);
    case.done();
    agent.pass(object(&bad)).await;
    assert!(case.done().is_empty(), "the same order is not tried again");
    let mut again = object(&bad);
    again.spec.desired_since = Some("2026-01-01T00:00:00Z".to_owned());
    agent.pass(again).await;
    assert_eq!(case.done(), [format!("apply {bad}")], "another order is");
}

/// What was in its way may be gone: the remedy is told with the refusal.
#[tokio::test]
async fn a_node_that_could_not_have_it_is_asked_again_at_another_order() {
    let case = Case::new();
    let (good, wanted) = (case.revision(50), case.revision(60));
    let mut agent = case.agent();
    agent.pass(object(&good)).await;
    case.done();
    case.side.with(|world| {
        world.cannot = Some(Trouble::Refused("spec.runtime.storage.directory: is not mounted".to_owned()));
    });
    agent.pass(object(&wanted)).await;
    let failed = case.side.with(|world| world.statuses.last().cloned()).unwrap().failed.unwrap();
    assert_eq!((failed.revision, failed.reason.as_str()), (wanted.clone(), "Refused"));
    case.side.with(|world| world.cannot = None);
    agent.pass(object(&wanted)).await;
    assert!(case.done().is_empty(), "the same order is not tried again");
    let mut again = object(&wanted);
    again.spec.desired_since = Some("2026-01-01T00:00:00Z".to_owned());
    agent.pass(again).await;
    assert_eq!(case.done(), [format!("apply {wanted}")]);
}

/// A node that may be taken over until one o'clock, with these policies.
fn granted(name: &str, policies: &str) -> RuntimeNode {
    let mut object = object(name);
    object.spec.policy_revision = Some(policies.to_owned());
    object.spec.grant = Some(Grant {
        revision: name.to_owned(),
        disruption: Disruption::Drain,
        expires_at: "2026-01-01T01:00:00Z".to_owned(),
    });
    object
}

#[tokio::test]
async fn a_node_is_taken_over_with_the_revision_that_it_is_told_to_have() {
    let case = Case::new();
    let name = case.revision(50);
    case.side.with(|world| {
        world.facts.adoption.phase = AdoptPhase::NotAdopted;
        world.facts.daemon = None;
    });
    let policies = RuntimeRevisionSpec::of_policies([]);
    let set = policies.name();
    case.side.with(|world| world.revisions.insert(set.clone(), policies));
    let mut agent = case.agent();
    agent.clock.hear("Thu, 01 Jan 2026 00:00:00 GMT");
    let object = granted(&name, &set);
    agent.pass(object).await;
    let done = case.done();
    assert_eq!(done.len(), 2, "what the daemon has from the beginning is not applied again: {done:?}");
    assert_eq!(done[0], format!("check with {set}"), "before the node is drained for it");
    assert!(done[1].starts_with(&format!("adopt with {name}")) && done[1].contains("\"pidsLimit\":50"), "{done:?}");
    assert_eq!(agent.journal.current.as_ref().map(|held| held.revision.clone()), Some(name));
}

/// What the operator reads of it: `policies_that_a_node_waits_for_end_no_time` (operator/src/controllers/rollout/build/tests.rs).
#[tokio::test]
async fn policies_that_are_edited_while_a_node_waits_for_leave_are_waited_for_too() {
    let case = Case::new();
    let name = case.revision(50);
    case.side.with(|world| {
        world.facts.adoption.phase = AdoptPhase::NotAdopted;
        world.facts.daemon = None;
    });
    let mut agent = case.agent();
    agent.pass(object(&name)).await;
    let last = || case.side.with(|world| world.statuses.last().cloned()).unwrap();
    assert_eq!(last().phase, Phase::AwaitingGrant);
    let policies = RuntimeRevisionSpec::of_policies([]);
    let set = policies.name();
    let mut edited = object(&name);
    edited.spec.policy_revision = Some(set.clone());
    let before = case.side.with(|world| world.statuses.len());
    agent.pass(edited.clone()).await;
    let told: Vec<_> = case.side.with(|world| world.statuses[before..].to_vec());
    assert!(!told.is_empty() && told.iter().all(|status| status.phase == Phase::AwaitingPolicies), "{told:?}");
    assert_eq!(serde_json::to_value(last().phase).unwrap(), "AwaitingPolicies");
    assert!(last().message.unwrap().contains("not found") && last().failed.is_none());
    case.side.with(|world| world.revisions.insert(set, policies));
    agent.asking.clear();
    agent.pass(edited).await;
    assert_eq!(last().phase, Phase::AwaitingGrant, "it goes on by itself");
}

#[tokio::test]
async fn policies_that_do_not_fit_keep_a_node_from_being_taken_over_and_are_not_the_revisions_fault() {
    let case = Case::new();
    let name = case.revision(50);
    let policies = RuntimeRevisionSpec::of_policies([]);
    let set = policies.name();
    case.side.with(|world| {
        world.facts.adoption.phase = AdoptPhase::NotAdopted;
        world.facts.daemon = None;
        world.revisions.insert(set.clone(), policies);
        world.refuses = Some("match.images[0].pattern: \"a//b\"");
    });
    let mut agent = case.agent();
    agent.clock.hear("Thu, 01 Jan 2026 00:00:00 GMT");
    let mut object = granted(&name, &set);
    agent.pass(object.clone()).await;
    let last = case.side.with(|world| world.statuses.last().cloned()).unwrap();
    let told = last.message.unwrap_or_default();
    assert!(told.contains(&set) && told.contains("a//b") && last.failed.is_none(), "{told}: {:?}", last.failed);
    assert_eq!((last.phase, last.enforcement.result.as_str()), (Phase::AwaitingPolicies, "Refused"));
    assert!(agent.journal.failed.is_none());
    assert_eq!(case.done(), [format!("check with {set}")], "once");
    agent.pass(object.clone()).await;
    assert!(case.done().is_empty(), "not at every look");
    // They fit when it is asked, and do not when it begins.
    case.side.with(|world| (world.refuses, world.at_last) = (None, Some(Trouble::Unfit("a//c".to_owned()))));
    object.spec.desired_since = Some("2026-01-01T00:00:00Z".to_owned());
    agent.pass(object).await;
    let last = case.side.with(|world| world.statuses.last().cloned()).unwrap();
    assert_eq!((last.phase, last.failed), (Phase::AwaitingPolicies, None));
    assert!(last.message.unwrap_or_default().contains("a//c") && agent.journal.failed.is_none());
    assert_eq!(case.done(), [format!("check with {set}")]);
}

#[tokio::test]
async fn what_the_node_may_go_back_to_is_needed() {
    let case = Case::new();
    let mut agent = case.agent();
    agent.journal.commit("config-a", 1);
    agent.journal.commit("config-b", 2);
    let mut object = object("config-c");
    object.spec.fallback_revision = Some("config-d".to_owned());
    object.spec.policy_revision = Some("policy-e".to_owned());
    agent.see(&object);
    assert_eq!(agent.needed(), ["config-b", "config-a", "config-c", "config-d", "policy-e"]);
}

/// A node that was just taken over, or rebooted in the middle of an attempt, has long begun and is late with one answer.
#[tokio::test(start_paused = true)]
async fn patience_with_a_node_begins_when_it_is_unwell() {
    let case = Case::new();
    let name = case.revision(50);
    case.side.with(|world| world.facts.daemon = None);
    let mut agent = case.agent();
    agent.fetch(&name).await.unwrap();
    agent.journal.begin(&name, "", Begun::Adopt, agent.clock.now() - 10 * PATIENCE);
    let long = Duration::from_secs(PATIENCE + 1);
    for phase in [AdoptPhase::Underway, AdoptPhase::Adopted] {
        case.side.with(|world| world.facts.adoption.phase = phase);
        agent.pass(object(&name)).await;
        assert!(agent.journal.failed.is_none(), "{phase:?}");
        tokio::time::advance(long).await;
    }
    agent.pass(object(&name)).await;
    assert_eq!(agent.journal.failed.as_ref().map(|failure| failure.reason.as_str()), Some("NotWell"));
}

#[tokio::test]
async fn nothing_begins_without_a_journal() {
    let case = Case::new();
    let name = case.revision(50);
    let mut agent = case.agent();
    agent.fetch(&name).await.unwrap();
    std::fs::remove_dir_all(case.dir.path()).unwrap();
    for _ in 0..=MAX_TRIES {
        assert_eq!(agent.pass(object(&name)).await, SOON);
        assert!(case.done().is_empty());
        assert!(agent.journal.attempt.is_none() && agent.journal.failed.is_none(), "no try, and no leave for one");
    }
}
