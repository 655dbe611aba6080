//! The revisions that a daemon is handed before it runs (`berth adopt`): what it would start with, handing over, taking back. The file is the
//! daemon's: docs/formats/applied-revisions.md.
//!
//! Must not: be used while a daemon runs, but for looking; that one is told by its socket.
use crate::accepted::Accepted;
use crate::load::{accepted_before, among, from_sources, sources, texts};
use crate::managed::{Applied, beside, remove};
use crate::revision::{Revision, Revisions};
use crate::starts::{FailedStart, Starts};
use crate::{Settings, Source};
use berth_model::Result;
use std::path::Path;

impl Revision {
    /// What it says by itself. Errors: the field that this version does not know, or that breaks a rule.
    pub fn settings(&self) -> Result<Settings> {
        of(&[], Revisions::of(self.clone()))
    }
}

fn of(directory: &[Source], revisions: Revisions) -> Result<Settings> {
    from_sources(revisions.sources(directory)?)
}

/// What is applied. `accepted` is the same file as for [`crate::watch`], here and below. Errors: it cannot be read.
pub fn applied(accepted: &Path) -> Result<Revisions> {
    Applied::open(beside(accepted)).map(|(applied, _)| applied.revisions)
}

/// What a daemon with this directory of documents would start with, if it were handed these. Errors: those of documents, or of a revision,
/// that would be refused.
pub fn next_start(directory: &Path, accepted: &Path, handed: Revisions) -> Result<Settings> {
    let before = accepted_before(&Accepted::new(accepted.to_owned()));
    of(&sources(&texts(directory)?, &among(&before))?, handed.over(&applied(accepted)?))
}

/// Puts revisions in the place of those of their kind, for the daemon that starts next, as [`crate::Live::apply`] does it for one that
/// runs. Whoever calls it has judged what they say. Errors: those of the disk.
pub fn hand_over(accepted: &Path, handed: Revisions) -> Result<()> {
    let (mut applied, _) = Applied::open(beside(accepted))?;
    applied.starts.forgive();
    if applied.revisions.configuration.is_none() {
        // A daemon that does not start with it starts with the directory's documents.
        applied.starts.came_up(None)?;
    }
    let revisions = handed.over(&applied.revisions);
    applied.keep(revisions)
}

/// What becomes of the policies when what was handed over is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormerPolicies {
    /// Those that are applied stay.
    Stay,
    /// These are applied again; none: the directory's documents count.
    Are(Option<Revision>),
}

/// Has the configuration that was applied before be so again, `None`: none; and the policies. It may be called again. Errors: those of the
/// disk.
pub fn take_back(accepted: &Path, configuration: Option<Revision>, policies: FormerPolicies) -> Result<()> {
    let path = beside(accepted);
    if configuration.is_none() && policies == FormerPolicies::Are(None) {
        // Also where what is there cannot be read.
        return remove(&path);
    }
    let (mut applied, _) = Applied::open(path)?;
    let policies = match policies {
        FormerPolicies::Stay => applied.revisions.policies.clone(),
        FormerPolicies::Are(policies) => policies,
    };
    applied.leave(Revisions { configuration, policies })
}

/// The configuration that a daemon did not start with, if there is one.
pub fn failed_start(accepted: &Path) -> Option<FailedStart> {
    Starts::beside(&beside(accepted)).failed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::RuntimeRevisionSpec;
    use serde_json::json;
    use std::path::PathBuf;
    use tempfile::TempDir;

    fn configuration(spec: serde_json::Value) -> Revision {
        let spec = serde_json::from_value(spec).unwrap();
        let content = RuntimeRevisionSpec::of_runtime("0.1.0", &spec);
        Revision { name: content.name(), content }
    }

    fn policies() -> Revision {
        let spec = serde_json::from_value(json!({"mode": "Enforce"})).unwrap();
        let content = RuntimeRevisionSpec::of_policies([("p", &spec)]);
        Revision { name: content.name(), content }
    }

    fn node() -> (TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (etc, accepted) = (dir.path().join("etc"), dir.path().join("lib/accepted.json"));
        std::fs::create_dir(&etc).unwrap();
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        let text = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: a}\n\
            spec: {runtime: {pidsLimit: 50, cgroupManager: Cgroupfs}}\n";
        std::fs::write(etc.join("a.yaml"), text).unwrap();
        (dir, etc, accepted)
    }

    fn left(dir: &TempDir) -> usize {
        std::fs::read_dir(dir.path().join("lib")).unwrap().count()
    }

    #[test]
    fn the_next_daemon_starts_with_what_it_was_handed_until_that_is_taken_back() {
        let (dir, etc, accepted) = node();
        let next = |revision: Option<&Revision>| revision.cloned().map(Revisions::of).unwrap_or_default();
        let limit = |revision: Option<&Revision>| next_start(&etc, &accepted, next(revision)).unwrap().pids_limit;
        let one = configuration(json!({"runtime": {"pidsLimit": 70}}));
        assert_eq!((limit(None), limit(Some(&one)), left(&dir)), (Some(50), Some(70), 0), "looking changes nothing");
        hand_over(&accepted, Revisions::of(one.clone())).unwrap();
        assert_eq!((limit(None), applied(&accepted).unwrap()), (Some(70), Revisions::of(one)));
        assert_eq!(
            next_start(&etc, &accepted, Revisions::default()).unwrap().cgroup_manager,
            None,
            "the documents do not count"
        );
        for _ in 0..2 {
            take_back(&accepted, None, FormerPolicies::Are(None)).unwrap();
            assert_eq!((limit(None), left(&dir)), (Some(50), 0), "nothing is left");
        }
    }

    #[test]
    fn what_was_applied_before_is_applied_again() {
        let (dir, etc, accepted) = node();
        let of = |pids: u64| configuration(json!({"runtime": {"pidsLimit": pids}}));
        hand_over(&accepted, Revisions::of(of(60))).unwrap();
        hand_over(&accepted, Revisions::of(policies())).unwrap();
        let before = applied(&accepted).unwrap();
        hand_over(&accepted, Revisions::of(of(70))).unwrap();
        assert_eq!(applied(&accepted).unwrap(), Revisions::of(of(70)).over(&before), "policies stay");
        for _ in 0..2 {
            take_back(&accepted, Some(of(60)), FormerPolicies::Stay).unwrap();
            assert_eq!(applied(&accepted).unwrap(), before);
        }
        std::fs::write(dir.path().join("lib/applied-revisions.json"), "torn").unwrap();
        assert_eq!(applied(&accepted).unwrap(), before, "what was taken back is nothing to go back to");
        take_back(&accepted, None, FormerPolicies::Stay).unwrap();
        assert_eq!(applied(&accepted).unwrap(), Revisions::of(policies()));
        assert_eq!(next_start(&etc, &accepted, Revisions::default()).unwrap().pids_limit, Some(50));
    }

    #[test]
    fn policies_that_are_handed_over_are_in_force_from_the_first_start_and_go_with_the_rest() {
        let (dir, etc, accepted) = node();
        let handed =
            Revisions::of(policies()).over(&Revisions::of(configuration(json!({"runtime": {"pidsLimit": 70}}))));
        let next = next_start(&etc, &accepted, handed.clone()).unwrap();
        assert_eq!((next.policies.len(), left(&dir)), (1, 0), "looking changes nothing");
        hand_over(&accepted, handed.clone()).unwrap();
        assert_eq!(next_start(&etc, &accepted, Revisions::default()).unwrap().policies.len(), 1);
        // A start that fails for the configuration loosens nothing.
        crate::start_failed(&accepted, "somebody has that subnet").unwrap();
        assert_eq!(applied(&accepted).unwrap(), Revisions::of(policies()));
        for _ in 0..2 {
            take_back(&accepted, None, FormerPolicies::Are(None)).unwrap();
            assert_eq!(left(&dir), 0);
        }
        hand_over(&accepted, handed).unwrap();
        for _ in 0..2 {
            take_back(&accepted, None, FormerPolicies::Are(Some(policies()))).unwrap();
            assert_eq!(applied(&accepted).unwrap(), Revisions::of(policies()));
        }
    }

    #[test]
    fn a_daemon_that_does_not_start_with_it_says_so_and_starts_without() {
        let (dir, etc, accepted) = node();
        let bad = configuration(json!({"network": {"subnet": "10.0.0.0/24"}}));
        hand_over(&accepted, Revisions::of(bad.clone())).unwrap();
        crate::start_failed(&accepted, "somebody has that subnet").unwrap();
        let failed = failed_start(&accepted).unwrap();
        assert_eq!((failed.revision, failed.problem.as_str()), (bad.name.clone(), "somebody has that subnet"));
        assert_eq!(next_start(&etc, &accepted, Revisions::default()).unwrap().pids_limit, Some(50));
        hand_over(&accepted, Revisions::of(bad)).unwrap();
        assert_eq!(failed_start(&accepted), None, "it is tried again");
        take_back(&accepted, None, FormerPolicies::Are(None)).unwrap();
        assert_eq!(left(&dir), 0);
    }

    #[test]
    fn a_revision_that_this_version_does_not_know_is_refused_with_its_field() {
        let (_dir, etc, accepted) = node();
        let mut unknown = configuration(json!({}));
        unknown.content.runtime.as_mut().unwrap().config = json!({"runtime": {"turbo": true}});
        unknown.name = unknown.content.name();
        for refused in [unknown.settings(), next_start(&etc, &accepted, Revisions::of(unknown.clone()))] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(&unknown.name) && message.contains("turbo"), "{message}");
        }
    }
}
