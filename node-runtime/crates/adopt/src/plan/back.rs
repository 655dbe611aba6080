//! From the adoption that is in force, and what became of the node since, to the plan that gives it back.
//!
//! Owns: that. A file that is as the adoption left it comes back byte for byte; one that somebody else has written since keeps what that one
//! wrote, but for the runtime. Must not: read or write any.
use super::{Commands, FileChange, FileState, Permission, Plan, PodName, Profile, Refusal, checks};
use crate::edit::{self, Former};
use crate::kubelet::{Configuration, ENDPOINT, flag};
use crate::step::Direction;
use crate::yaml;
use std::path::PathBuf;

/// What is known of a node that is to be given back.
#[derive(Debug, Clone)]
pub struct ReturnFacts {
    /// Name of the operation.
    pub id: String,
    /// This boot.
    pub boot_id: String,
    /// Unix time in seconds.
    pub now: u64,
    /// Unix time in seconds after which it has to be walked back.
    pub deadline: u64,
    /// Whether the pods are ended without Berth's daemon, which does not answer.
    pub without_daemon: bool,
    /// Who allows it.
    pub permission: Permission,
    /// What the running kubelet was told; `None`: none runs.
    pub kubelet: Option<Configuration>,
    /// Commands that were given.
    pub commands: Option<Commands>,
    /// Files that are not as the adoption left them.
    pub changed: Vec<Found>,
    /// Static pods that run.
    pub pods: Vec<PodName>,
    /// Pods on Berth that are no kubelet's: they would be left without a daemon.
    pub others: Vec<PodName>,
}

impl ReturnFacts {
    fn in_cluster(&self) -> bool {
        self.kubelet.as_ref().is_some_and(|kubelet| flag(&kubelet.arguments, "kubeconfig").is_some())
    }

    /// Where the kubelet says that it is well: as it is now, which others may have changed since the adoption.
    fn healthz(&self, adopted: &Plan) -> Option<(String, u16)> {
        let known = self.kubelet.as_ref().filter(|kubelet| kubelet.problems.is_empty());
        known.map_or_else(|| adopted.healthz.clone(), Configuration::healthz)
    }

    /// Those that are given now, on a node whose kubelet has commands.
    fn commands(&self, adopted: &Plan) -> Commands {
        let given = self.commands.as_ref().filter(|_| adopted.profile == Profile::Command);
        given.unwrap_or(&adopted.commands).clone()
    }
}

/// A file that somebody else has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub path: PathBuf,
    /// As it is now, `None` if it is gone; or why it cannot be read.
    pub now: Result<Option<FileState>, String>,
}

/// The plan for giving the node back, from that of the adoption that is in force. Errors: everything that speaks against it.
pub fn give_back(adopted: &Plan, facts: &ReturnFacts) -> Result<Plan, Vec<Refusal>> {
    let mut refusals = Vec::new();
    refusals.extend(checks::permission(&facts.permission, facts.in_cluster() || adopted.in_cluster, facts.now));
    if let Some(pod) = facts.others.first().filter(|_| !adopted.install.daemon_before) {
        refusals.push(Refusal::new(
            format!("pod {pod}"),
            format!(
                "and {} more on Berth are no kubelet's, and Berth's daemon is going to end",
                facts.others.len() - 1
            ),
            "end them first: `berth rm --force POD`",
        ));
    }
    let (mut files, mut notes) = (Vec::new(), Vec::new());
    if facts.commands.is_some() && adopted.profile != Profile::Command {
        let profile = adopted.profile.name();
        notes.push(format!("the commands that are given are not used: the kubelet has the profile {profile}"));
    }
    for change in adopted.files.iter().rev() {
        let Some(found) = facts.changed.iter().find(|found| found.path == change.path) else {
            files.push(change.reversed());
            continue;
        };
        match edited(adopted, change, found) {
            Ok(back) => {
                notes.push(format!("{}: was changed after the adoption; only the runtime is put back there", change.path.display()));
                files.extend(back);
            }
            Err(problem) => refusals.push(Refusal::new(
                change.path.display().to_string(),
                format!("is not as berth adopt left it, and {problem}"),
                format!(
                    "take what names {} out of it by hand ({} was there before), and run `berth adopt return` again: what does not name it is left alone",
                    adopted.to.endpoint(),
                    adopted.from.endpoint()
                ),
            )),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    Ok(Plan {
        id: facts.id.clone(),
        direction: Direction::Return,
        boot_id: facts.boot_id.clone(),
        deadline: facts.deadline,
        permission: facts.permission.clone(),
        from: adopted.to.clone(),
        to: adopted.from.clone(),
        commands: facts.commands(adopted),
        healthz: facts.healthz(adopted),
        files,
        images: Vec::new(),
        wished: Vec::new(),
        pods: facts.pods.clone(),
        steps: Direction::Return.steps().to_vec(),
        // What becomes of it is for whoever gave it.
        revision: None,
        notes,
        settings: None,
        restart: false,
        without_daemon: facts.without_daemon,
        ..adopted.clone()
    })
}

/// What is to be done about a file that somebody else has changed; `None` where nothing of ours is in it any more. Errors: it cannot be read
/// or changed safely, in words.
fn edited(adopted: &Plan, change: &FileChange, found: &Found) -> Result<Option<FileChange>, String> {
    let now = found.now.clone()?;
    let Some(before) = &change.before else {
        // Ours alone: whatever it says now, it goes.
        return Ok(now.map(|now| FileChange { before: Some(now), after: None, ..change.clone() }));
    };
    let Some(now) = now else {
        return Ok(Some(FileChange { before: None, ..change.reversed() }));
    };
    let ours = change.after.as_ref().map(|state| state.text.as_str()).unwrap_or_default();
    let text = match yaml::fields(ours) {
        Ok(ours) => edit::configuration_back(&now.text, &Former::between(&before.text, &ours)?)?,
        Err(_) if edit::flag_values(&now.text).contains(&adopted.to.endpoint()) => {
            edit::endpoint_flag(&now.text, &adopted.from.endpoint()).unwrap_or_else(|| now.text.clone())
        }
        Err(_) => now.text.clone(),
    };
    if text.contains(&adopted.to.endpoint()) {
        return Err(format!("still names {} ({ENDPOINT})", adopted.to.endpoint()));
    }
    let after = FileState { text, sha256: String::new(), ..now.clone() };
    let same = after.text == now.text;
    Ok((!same).then(|| FileChange { before: Some(now), after: Some(after), ..change.clone() }))
}
