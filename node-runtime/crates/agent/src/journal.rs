//! What an agent remembers of a node over its own end, the daemon's and the node's: pure. Format: docs/formats/agent-journal.md.
//!
//! It is written before each step that changes the node. Where the node stands is looked at, never remembered; the journal says what was
//! tried, how often and with which outcome, so that whoever goes on neither begins again for ever nor forgets what failed.
//! Must not: do I/O; `store.rs` keeps it.
use crate::facts::{AdoptPhase, Daemon, Facts};
use berth_crds::Disruption;
use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Journal {
    /// UID of the Node that it is about.
    #[serde(rename = "nodeUID")]
    pub node_uid: String,
    /// The revision that was applied and verified last.
    pub current: Option<Held>,
    /// The one before that was verified.
    pub previous: Option<String>,
    /// What leave was asked for last, under which nothing was begun yet.
    pub asked: Option<Asked>,
    /// What is tried.
    pub attempt: Option<Attempt>,
    /// The desired revision that was given up last.
    pub failed: Option<Failure>,
    /// The revision that the node was to go back to, and that failed as well.
    pub failed_back: Option<Failure>,
    /// The set of policies that was refused last.
    pub refused_policies: Option<Failure>,
    /// Who refused it.
    pub refused_by: Option<Refuser>,
    /// The daemon's ends.
    pub crashes: Crashes,
    /// The last operation of `berth adopt` that was seen.
    pub operation: Option<String>,
    /// The kubelet that was seen last; `None`: none on Berth.
    pub kubelet: Option<Kubelet>,
}

/// A kubelet on Berth. It asks for the cgroup driver at its start only (KEP-4033).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kubelet {
    /// Its process.
    pub pid: u32,
    /// The boot in which it is.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// The daemon's cgroup driver when it was first seen: the one that it goes by.
    pub cgroup_driver: String,
}

/// A verified revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Its name.
    pub revision: String,
    /// Since when, in Unix seconds.
    pub since: u64,
}

/// Leave that was asked for: the node has looked, and could have the revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Asked {
    /// For which revision.
    pub revision: String,
    /// How the node was told of it.
    pub order: String,
    /// What leave it needs.
    pub disruption: Option<Disruption>,
    /// The same as a sentence.
    pub message: String,
}

/// An attempt at a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempt {
    /// At which.
    pub revision: String,
    /// How the node was told: another order for the same revision is another attempt.
    pub order: String,
    /// Steps that began.
    pub tries: u32,
    /// Whether taking the node over was begun, or giving it back.
    pub adopted: bool,
    /// Whether other settings of the kubelet were begun.
    pub kubelet: bool,
    /// Whether a step of it was begun under leave for all of the node's pods to end.
    pub emptied: bool,
    /// Restarts of the daemon that were begun.
    pub restarts: u32,
    /// When the last step began, in Unix seconds.
    pub acted: u64,
    /// Crashes that had been counted when it began.
    pub crashes: u32,
    /// The last operation of `berth adopt` that had been seen when the last step began: what is said of that one is not of this attempt.
    pub operation: Option<String>,
}

/// A revision that was given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// Its name.
    pub revision: String,
    /// The order under which it failed.
    pub order: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence.
    pub message: String,
    /// When, in Unix seconds.
    pub at: u64,
}

/// Who refused a set of policies: another one may not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refuser {
    /// Version of the agent, which judges before the daemon does.
    pub agent: String,
    /// Version of the daemon.
    pub version: String,
    /// Its configuration.
    pub configuration: Option<String>,
    /// Its process.
    pub pid: u32,
    /// The boot in which it is.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

impl Refuser {
    /// Who would be asked now; `None`: nobody.
    pub fn of(facts: &Facts) -> Option<Self> {
        let daemon = facts.daemon.as_ref()?;
        Some(Self {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            version: daemon.version.clone(),
            configuration: daemon.configuration.clone(),
            pid: daemon.pid,
            boot_id: facts.boot_id.clone(),
        })
    }
}

/// The daemon's ends that nobody asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Crashes {
    /// How many.
    pub count: u32,
    /// The daemon that was seen last; 0 is none.
    pub pid: u32,
    /// The boot in which it was.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// Another one is expected, because a step asks for it.
    pub expected: bool,
}

/// A step that changes the node, as far as the journal is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// A configuration is applied.
    Apply,
    /// The daemon is restarted, perhaps as another version.
    Restart,
    /// The node is taken over or given back.
    Adopt,
    /// The kubelet is started anew with other settings.
    Kubelet,
}

impl Journal {
    /// For the Node of that UID. What was tried on another one of the same name counts for nothing.
    #[must_use]
    pub fn of_node(self, uid: &str) -> Self {
        if self.node_uid == uid || self.node_uid.is_empty() {
            return Self { node_uid: uid.to_owned(), ..self };
        }
        Self { node_uid: uid.to_owned(), ..Self::default() }
    }

    /// The attempt at a revision under an order, if that is what is tried.
    pub fn attempt_at(&self, revision: &str, order: &str) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|a| a.revision == revision && a.order == order)
    }

    /// Whether this order for a revision has failed.
    pub fn gave_up(&self, revision: &str, order: &str) -> bool {
        self.failed.as_ref().is_some_and(|f| f.revision == revision && f.order == order)
    }

    /// What leave was asked for under that order for a revision, if it was, and nothing has been said or begun since.
    pub fn asked_for(&self, revision: &str, order: &str) -> Option<&Asked> {
        self.asked.as_ref().filter(|asked| asked.revision == revision && asked.order == order)
    }

    /// Takes in what is seen of the daemon, and of operations.
    pub fn observe(&mut self, facts: &Facts) {
        if facts.adoption.operation.is_some() {
            self.operation.clone_from(&facts.adoption.operation);
        }
        self.observe_kubelet(facts);
        let crashes = &mut self.crashes;
        let Some(daemon) = &facts.daemon else { return };
        if crashes.pid == daemon.pid && crashes.boot_id == facts.boot_id {
            return;
        }
        if crashes.pid != 0 && crashes.boot_id == facts.boot_id && !crashes.expected {
            crashes.count = crashes.count.saturating_add(1);
        }
        *crashes = Crashes { count: crashes.count, pid: daemon.pid, boot_id: facts.boot_id.clone(), expected: false };
    }

    /// Whether the kubelet that was seen last goes by another cgroup driver than this daemon's. One that does not say has no other.
    pub fn other_driver(&self, daemon: &Daemon) -> bool {
        let known = self.kubelet.as_ref().filter(|_| !daemon.cgroup_driver.is_empty());
        known.is_some_and(|kubelet| kubelet.cgroup_driver != daemon.cgroup_driver)
    }

    fn observe_kubelet(&mut self, facts: &Facts) {
        if facts.adoption.phase.foreign() {
            self.kubelet = None;
        }
        let (Some(pid), Some(daemon)) = (facts.kubelet, &facts.daemon) else { return };
        let of_this_boot = self.kubelet.as_ref().filter(|k| k.boot_id == facts.boot_id);
        let known = of_this_boot.is_some_and(|k| k.pid == pid);
        if facts.adoption.phase == AdoptPhase::Adopted && !known && !daemon.cgroup_driver.is_empty() {
            // One that is older than the daemon asked the daemon before it, which had the driver of then.
            let former = of_this_boot.filter(|_| facts.kubelet_is_older).map(|k| &k.cgroup_driver);
            let cgroup_driver = former.unwrap_or(&daemon.cgroup_driver).clone();
            self.kubelet = Some(Kubelet { pid, boot_id: facts.boot_id.clone(), cgroup_driver });
        }
    }

    /// The API server's clock says what time it is. What the node has it had by now, whatever its own clock showed before that was known.
    pub fn not_later(&mut self, now: u64) {
        if let Some(held) = &mut self.current {
            held.since = held.since.min(now);
        }
    }

    /// A step begins.
    pub fn begin(&mut self, revision: &str, order: &str, step: Begun, now: u64) {
        let fresh = Attempt {
            revision: revision.to_owned(),
            order: order.to_owned(),
            crashes: self.crashes.count,
            ..Attempt::default()
        };
        let attempt = self.attempt_at(revision, order).cloned().unwrap_or(fresh);
        self.crashes.expected |= matches!(step, Begun::Restart | Begun::Adopt);
        self.asked = None;
        self.attempt = Some(Attempt {
            tries: attempt.tries.saturating_add(1),
            adopted: attempt.adopted || step == Begun::Adopt,
            kubelet: attempt.kubelet || step == Begun::Kubelet,
            restarts: attempt.restarts.saturating_add(u32::from(step == Begun::Restart)),
            acted: now,
            operation: self.operation.clone(),
            ..attempt
        });
    }

    /// Whether what has begun was begun under leave for all of the node's pods to end.
    pub fn emptied(&mut self, leave: bool) {
        if let Some(attempt) = &mut self.attempt {
            attempt.emptied |= leave;
        }
    }

    /// A revision is applied and verified.
    pub fn commit(&mut self, revision: &str, now: u64) {
        let former = self.current.take().map(|held| held.revision).filter(|former| former != revision);
        self.previous = former.or_else(|| self.previous.take());
        self.current = Some(Held { revision: revision.to_owned(), since: now });
        (self.attempt, self.asked) = (None, None);
        self.failed_back = None;
    }

    /// A revision is given up: the desired one, or the one that the node was to go back to.
    pub fn give_up(&mut self, failure: Failure, back: bool) {
        (self.attempt, self.asked) = (None, None);
        if back {
            self.failed_back = Some(failure);
        } else {
            self.failed = Some(failure);
            self.failed_back = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: u32, boot: &str) -> Facts {
        Facts { boot_id: boot.to_owned(), daemon: Some(Daemon { pid, ..Daemon::default() }), ..Facts::default() }
    }

    #[test]
    fn only_ends_that_nobody_asked_for_are_crashes() {
        let mut journal = Journal::default();
        journal.observe(&seen(7, "a"));
        journal.observe(&seen(7, "a"));
        journal.observe(&Facts::default());
        assert_eq!(journal.crashes.count, 0);
        journal.observe(&seen(8, "a"));
        assert_eq!(journal.crashes.count, 1);
        journal.begin("r", "", Begun::Restart, 1);
        journal.observe(&seen(8, "a"));
        journal.observe(&seen(9, "a"));
        assert_eq!(journal.crashes.count, 1, "it was asked for");
        journal.observe(&seen(3, "b"));
        assert_eq!(journal.crashes.count, 1, "the node was rebooted");
        journal.observe(&seen(4, "b"));
        assert_eq!(journal.crashes.count, 2);
    }

    #[test]
    fn a_kubelet_goes_by_the_driver_that_was_there_when_it_started() {
        let mut journal = Journal::default();
        let mut facts = Facts { kubelet: Some(5), ..seen(7, "a") };
        let mut sees = |facts: &Facts| {
            journal.observe(facts);
            journal.kubelet.as_ref().map(|k| k.cgroup_driver.clone())
        };
        let with = |facts: &mut Facts, driver: &str| {
            facts.daemon.as_mut().unwrap().cgroup_driver = driver.to_owned();
        };
        with(&mut facts, "systemd");
        facts.adoption.phase = AdoptPhase::NotAdopted;
        assert_eq!(sees(&facts), None, "it is on another runtime");
        facts.adoption.phase = AdoptPhase::Adopted;
        assert_eq!(sees(&facts).as_deref(), Some("systemd"));
        with(&mut facts, "cgroupfs");
        assert_eq!(sees(&facts).as_deref(), Some("systemd"), "the same kubelet");
        facts.kubelet = None;
        assert_eq!(sees(&facts).as_deref(), Some("systemd"), "none runs");
        (facts.kubelet, facts.kubelet_is_older) = (Some(8), true);
        assert_eq!(sees(&facts).as_deref(), Some("systemd"), "it asked the daemon of before");
        (facts.kubelet, facts.kubelet_is_older) = (Some(6), false);
        assert_eq!(sees(&facts).as_deref(), Some("cgroupfs"));
        with(&mut facts, "systemd");
        facts.boot_id = "b".to_owned();
        assert_eq!(sees(&facts).as_deref(), Some("systemd"), "another boot");
        facts.adoption.phase = AdoptPhase::Returned;
        assert_eq!(sees(&facts), None);
    }

    #[test]
    fn a_daemon_that_does_not_say_its_driver_has_no_other() {
        let kubelet = Kubelet { pid: 5, cgroup_driver: "systemd".to_owned(), ..Kubelet::default() };
        let journal = Journal { kubelet: Some(kubelet), ..Journal::default() };
        let other =
            |driver: &str| journal.other_driver(&Daemon { cgroup_driver: driver.to_owned(), ..Daemon::default() });
        assert!(other("cgroupfs") && !other("systemd") && !other(""));
        let daemon = Daemon { cgroup_driver: "cgroupfs".to_owned(), ..Daemon::default() };
        assert!(!Journal::default().other_driver(&daemon), "nothing is known of the kubelet");
    }

    #[test]
    fn another_order_is_another_attempt() {
        let mut journal = Journal::default();
        journal.begin("r", "1", Begun::Apply, 1);
        journal.begin("r", "1", Begun::Restart, 2);
        let attempt = journal.attempt_at("r", "1").unwrap();
        assert_eq!((attempt.tries, attempt.restarts, attempt.adopted, attempt.acted), (2, 1, false, 2));
        let failure = Failure { revision: "r".to_owned(), order: "1".to_owned(), ..Failure::default() };
        journal.give_up(failure, false);
        assert!(journal.gave_up("r", "1") && !journal.gave_up("r", "2"));
        journal.begin("r", "2", Begun::Apply, 3);
        assert_eq!(journal.attempt_at("r", "2").map(|a| a.tries), Some(1));
    }

    #[test]
    fn what_was_verified_before_is_known() {
        let mut journal = Journal::default();
        for revision in ["a", "b", "b"] {
            journal.commit(revision, 5);
        }
        assert_eq!(journal.current.as_ref().map(|h| h.revision.as_str()), Some("b"));
        assert_eq!(journal.previous.as_deref(), Some("a"));
    }

    #[test]
    fn what_was_verified_by_a_clock_that_is_ahead_was_there_when_that_is_known() {
        let mut journal = Journal::default();
        journal.commit("a", 900);
        for (now, since) in [(1000, 900), (500, 500), (700, 500)] {
            journal.not_later(now);
            assert_eq!(journal.current.as_ref().map(|held| held.since), Some(since), "{now}");
        }
    }

    #[test]
    fn another_node_of_the_same_name_begins_anew() {
        let mut journal = Journal::default().of_node("1");
        journal.commit("a", 5);
        assert!(journal.clone().of_node("1").current.is_some());
        assert!(journal.of_node("2").current.is_none());
    }
}
