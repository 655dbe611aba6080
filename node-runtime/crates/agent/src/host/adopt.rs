//! `berth adopt` on the host: its words, and what it answers (`node-runtime/src/adopt/report.rs`).
//!
//! What takes a node over is a process of the host, with a journal and a dead-man timer: it goes on if this agent ends. Must not: wait for
//! it to the end.
use super::Host;
use super::enter_call::{Ended, call, feed, spawn};
use crate::facts::{AdoptPhase, Adoption, OUTDATED};
use crate::node::{Permit, Policies, Trouble};
use crate::plan::Wanted;
use crate::time;
use berth_crds::{API_VERSION, AdoptProfile, Disruption, Drift, KubeletConfig};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long `status` may take.
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// How long a plan may take to be made.
const PLAN_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take until an operation is seen to go on.
const BEGIN_LIMIT: Duration = Duration::from_secs(120);
/// The reason of a refusal that speaks against nodes of the control plane (`Reason` in `node-runtime/crates/adopt/src/plan/mod.rs`).
const CONTROL_PLANE: &str = "ControlPlane";
const PAUSE: Duration = Duration::from_millis(500);

/// How a kubelet is stopped and started that no service manager runs: programs and words, no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Stops it.
    pub stop: String,
    /// Starts it, and returns then.
    pub start: String,
    /// Files that have its flags.
    pub flags_files: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Status {
    phase: String,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    interrupted: bool,
    #[serde(default)]
    stuck: Option<String>,
    #[serde(default)]
    holder: Option<u32>,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    refusals: Vec<Refusal>,
    #[serde(default)]
    kubelet: Option<KubeletConfig>,
    #[serde(default)]
    failed: Option<String>,
}

#[derive(Debug, Deserialize)]
struct File {
    path: String,
    after: Option<String>,
    now: Option<String>,
    #[serde(default)]
    outdated: bool,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    field: String,
    found: String,
    remedy: String,
    #[serde(default)]
    reason: Option<String>,
}

/// Whether a kubelet is on this Berth without ever having been taken over, by its process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Native(Arc<Mutex<Option<(u32, bool)>>>);

impl Native {
    fn of(&self, kubelet: u32) -> Option<bool> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(pid, _)| *pid == kubelet).map(|(_, native)| native)
    }

    fn found(&self, kubelet: u32, native: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((kubelet, native));
    }
}

/// What that version says of the node. That it says nothing is a fact too.
pub(super) async fn look(host: &Host, version: &str) -> Adoption {
    let told = status(host, version).await;
    if told.phase != AdoptPhase::NotAdopted {
        return told;
    }
    match native(host, version).await {
        Ok(true) => Adoption { phase: AdoptPhase::Adopted, native: true, ..told },
        Ok(false) => told,
        Err(why) => Adoption { message: Some(why), ..Adoption::default() },
    }
}

/// A node that was never taken over may be on Berth from its beginning. A kubelet's runtime is the same for as long as it runs, so each
/// kubelet is asked for once.
async fn native(host: &Host, version: &str) -> Result<bool, String> {
    let kubelet = host.kubelet.find()?;
    if let Some(known) = host.native.of(kubelet) {
        return Ok(known);
    }
    let words = plan_words(host, &Wanted::default());
    let answer = call(host, version, &words, PLAN_LIMIT).await?;
    let Ok(status) = serde_json::from_str::<Plan>(&answer.out) else { return Err(answer.said()) };
    let native = status.phase.as_deref() == Some("native");
    host.native.found(kubelet, native);
    Ok(native)
}

/// What a plan, or a refusal of one, is known by.
#[derive(Debug, Deserialize)]
struct Plan {
    #[serde(default)]
    phase: Option<String>,
}

async fn status(host: &Host, version: &str) -> Adoption {
    let unknown = |message: String| Adoption { message: Some(message), ..Adoption::default() };
    let answer = match call(host, version, &words(&["adopt", "status", "-o", "json"]), STATUS_LIMIT).await {
        Ok(answer) => answer,
        Err(e) => return unknown(e),
    };
    match serde_json::from_str::<Status>(&answer.out) {
        Ok(status) => adoption(status),
        Err(_) => unknown(answer.said()),
    }
}

fn adoption(status: Status) -> Adoption {
    let phase = match (status.phase.as_str(), status.holder) {
        ("adopted", _) => AdoptPhase::Adopted,
        ("not-adopted", _) => AdoptPhase::NotAdopted,
        ("returned", _) => AdoptPhase::Returned,
        ("adopting" | "returning" | "configuring" | "walking-back" | "stuck", Some(_)) => AdoptPhase::Underway,
        ("adopting" | "returning" | "configuring" | "walking-back" | "stuck", None) => AdoptPhase::Left,
        _ => AdoptPhase::Unknown,
    };
    // Before and after an operation, files are as somebody else has them.
    let watched = phase == AdoptPhase::Adopted;
    let drifted = |file: &File| watched && (file.outdated || file.now != file.after);
    let drift = status.files.into_iter().filter(drifted).map(|file| {
        let kind = match (&file.after, &file.now) {
            _ if file.outdated => OUTDATED,
            (Some(_), None) => "Missing",
            (None, Some(_)) => "Replaced",
            _ => "Changed",
        };
        Drift { path: file.path, kind: kind.to_owned() }
    });
    Adoption {
        phase,
        native: false,
        operation: status.operation,
        message: status.stuck.or(status.reason),
        drift: drift.collect(),
        kubelet: status.kubelet,
        interrupted: status.interrupted,
        kubelet_failed: status.failed.as_deref() == Some("kubelet"),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The words of `start`.
fn start_words(host: &Host, wanted: &Wanted, permit: Permit<'_>) -> Vec<String> {
    let profile = wanted.profile;
    let mut all = words(&["adopt", "start", "-o", "json", "--grant", permit.grant]);
    all.extend(["--grant-expires".to_owned(), time::text(permit.expires)]);
    all.extend(["--prefix".to_owned(), host.prefix.display().to_string()]);
    all.extend(["--version-name".to_owned(), host.version.clone()]);
    let named = match profile {
        None | Some(AdoptProfile::Auto) => None,
        Some(AdoptProfile::Kubeadm) => Some("kubeadm"),
        Some(AdoptProfile::Systemd) => Some("systemd"),
        Some(AdoptProfile::Command) => Some("command"),
    };
    if let Some(named) = named {
        all.extend(words(&["--profile", named]));
    }
    let kubelet = host.kubelet.find().ok();
    let commands = commands(host, profile, kubelet.is_some_and(has_systemd));
    all.extend(kubelet_words(kubelet, commands));
    for file in commands.iter().flat_map(|commands| &commands.flags_files) {
        all.extend(["--kubelet-flags-file".to_owned(), file.display().to_string()]);
    }
    // Else the node looks itself whether it is one: labels need not say it.
    all.extend(wanted.control_plane.then(|| "--control-plane".to_owned()));
    if host.keep_stats {
        all.push("--keep-stats-gate".to_owned());
    }
    all
}

/// The commands of this node's kubelet, if it is one that is started by commands. One chart has nodes of all kinds.
fn commands(host: &Host, profile: Option<AdoptProfile>, systemd: bool) -> Option<&Commands> {
    match profile {
        Some(AdoptProfile::Command) => host.commands.as_ref(),
        None | Some(AdoptProfile::Auto) => host.commands.as_ref().filter(|_| !systemd),
        Some(AdoptProfile::Kubeadm | AdoptProfile::Systemd) => None,
    }
}

/// Whether systemd runs where that kubelet does (sd_booted(3)).
fn has_systemd(kubelet: u32) -> bool {
    std::path::Path::new(&format!("/proc/{kubelet}/root/run/systemd/system")).is_dir()
}

/// Which process the kubelet is, and how it is stopped and started where no service manager does that.
fn kubelet_words(kubelet: Option<u32>, commands: Option<&Commands>) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(commands) = commands {
        all.extend(words(&["--kubelet-stop", &commands.stop, "--kubelet-start", &commands.start]));
    }
    if let Some(pid) = kubelet {
        all.extend(["--kubelet-pid".to_owned(), pid.to_string()]);
    }
    all
}

/// The revision as `berth adopt` reads it: as the API server has it, but for what does not count. It goes by standard input: it is too long for
/// a word, and a part of it, of an agent that ended, is not what its name says.
fn object(revision: &str, json: &str) -> String {
    let name = serde_json::Value::from(revision);
    format!(r#"{{"apiVersion":"{API_VERSION}","kind":"RuntimeRevision","metadata":{{"name":{name}}},"spec":{json}}}"#)
}

/// The configuration, and the policies that are to be in force with it, in one text.
fn objects(revision: &str, wanted: &Wanted, policies: Option<Policies<'_>>) -> String {
    let configuration = object(revision, &wanted.json);
    match policies {
        None => configuration,
        Some(set) => {
            format!(
                r#"{{"apiVersion":"v1","kind":"List","items":[{configuration},{}]}}"#,
                object(set.revision, set.json)
            )
        }
    }
}

/// The words for a revision that follows by standard input.
fn with_revision(words: Vec<String>) -> Vec<String> {
    words.into_iter().chain(["--revision", "-"].map(str::to_owned)).collect()
}

/// Whether the node would be taken over, and have the revision, the policies, and its kubelet's settings too. The grant of the question is not one to act by:
/// with `--dry-run` nothing is changed.
pub(super) async fn check(
    host: &Host,
    revision: &str,
    wanted: &Wanted,
    policies: Option<Policies<'_>>,
) -> Result<Disruption, Trouble> {
    let words = with_revision(plan_words(host, wanted));
    let answer = feed(host, &host.version, &words, objects(revision, wanted, policies), PLAN_LIMIT).await;
    let answer = answer.map_err(Trouble::Later)?;
    match refused(&answer, Given { policies, grant: None }) {
        Some(trouble) => Err(trouble),
        None if answer.code == Some(0) => Ok(Disruption::Drain),
        None => Err(Trouble::Later(answer.said())),
    }
}

fn plan_words(host: &Host, wanted: &Wanted) -> Vec<String> {
    let permit = Permit { grant: "preflight", expires: time::now() + 3600 };
    let mut words = start_words(host, wanted, permit);
    words.push("--dry-run".to_owned());
    words
}

/// What a refusal may be about that is no revision of a configuration.
#[derive(Debug, Clone, Copy, Default)]
struct Given<'a> {
    /// The policies that go with it.
    policies: Option<Policies<'a>>,
    /// Name of the grant.
    grant: Option<&'a str>,
}

impl<'a> Given<'a> {
    fn grant(grant: &'a str) -> Self {
        Self { grant: Some(grant), policies: None }
    }
}

/// Everything that speaks against it, if that is what was answered. What speaks against the policies alone has their revision as its field, as
/// `berth adopt` was given it (`unfit` in `node-runtime/src/adopt/revision.rs`); a grant that is over has its name (`permission` in
/// `node-runtime/crates/adopt/src/plan/checks.rs`), and says nothing of what else is told. On a node that nobody asked for, whatever else speaks against
/// it does not count.
fn refused(answer: &Ended, given: Given<'_>) -> Option<Trouble> {
    let status: Status = serde_json::from_str(&answer.out).ok().filter(|status: &Status| status.phase == "refused")?;
    let told = |refusals: &[Refusal]| {
        let one = |r: &Refusal| format!("{}: {}; {}", r.field, r.found, r.remedy);
        refusals.iter().map(one).collect::<Vec<_>>().join(". ")
    };
    let grant = given.grant.map(|grant| format!("grant {grant}"));
    let (over, others): (Vec<_>, Vec<_>) = status.refusals.into_iter().partition(|r| Some(&r.field) == grant.as_ref());
    if others.is_empty() && !over.is_empty() {
        return Some(Trouble::Expired(told(&over)));
    }
    if others.iter().any(|r| r.reason.as_deref() == Some(CONTROL_PLANE)) {
        return Some(Trouble::NotAskedFor(told(&others)));
    }
    let set = given.policies.map(|set| format!("--revision {}", set.revision));
    let unfit = !others.is_empty() && others.iter().all(|r| Some(&r.field) == set.as_ref());
    let why = told(&others);
    Some(if unfit { Trouble::Unfit(why) } else { Trouble::Refused(why) })
}

/// The settings as a word of a command line.
fn text(settings: &KubeletConfig) -> String {
    serde_json::to_string(settings).unwrap_or_default()
}

fn configure_words(host: &Host, wanted: &Wanted, restart: bool) -> Vec<String> {
    let mut all = words(&["adopt", "kubelet", "-o", "json", "--inline"]);
    all.push(text(&wanted.kubelet));
    // What is asked for may be no other settings, but the daemon's cgroup driver.
    all.extend(restart.then(|| "--restart".to_owned()));
    let kubelet = host.kubelet.find().ok();
    all.extend(kubelet_words(kubelet, commands(host, wanted.profile, kubelet.is_some_and(has_systemd))));
    all
}

/// Whether the kubelet could have these settings, and be started anew where it has to be. No settings need no look: the file that has some goes.
pub(super) async fn check_kubelet(host: &Host, wanted: &Wanted, restart: bool) -> Result<(), Trouble> {
    if wanted.kubelet.is_empty() && !restart {
        return Ok(());
    }
    let mut words = configure_words(host, wanted, restart);
    words.push("--dry-run".to_owned());
    let answer = call(host, &host.version, &words, PLAN_LIMIT).await.map_err(Trouble::Later)?;
    match refused(&answer, Given::default()) {
        Some(trouble) => Err(trouble),
        None if answer.code == Some(0) => Ok(()),
        None => Err(Trouble::Later(answer.said())),
    }
}

pub(super) async fn configure_kubelet(
    host: &Host,
    wanted: &Wanted,
    restart: bool,
    permit: Option<Permit<'_>>,
) -> Result<(), Trouble> {
    let mut all = configure_words(host, wanted, restart);
    if let Some(permit) = permit {
        all.extend(words(&["--grant", permit.grant, "--grant-expires", &time::text(permit.expires)]));
    }
    begin(host, &all, None, permit.map(|permit| Given::grant(permit.grant)).unwrap_or_default()).await
}

pub(super) async fn start(
    host: &Host,
    revision: &str,
    wanted: &Wanted,
    policies: Option<Policies<'_>>,
    permit: Permit<'_>,
) -> Result<(), Trouble> {
    let words = with_revision(start_words(host, wanted, permit));
    let given = Given { policies, grant: Some(permit.grant) };
    begin(host, &words, Some(objects(revision, wanted, policies)), given).await
}

/// The words of `return`. The adoption knows whether the kubelet goes by commands.
fn return_words(host: &Host, permit: Permit<'_>) -> Vec<String> {
    let mut all = words(&["adopt", "return", "-o", "json", "--grant", permit.grant]);
    all.extend(["--grant-expires".to_owned(), time::text(permit.expires)]);
    all.extend(kubelet_words(None, host.commands.as_ref()));
    all
}

pub(super) async fn give_back(host: &Host, permit: Permit<'_>) -> Result<(), Trouble> {
    begin(host, &return_words(host, permit), None, Given::grant(permit.grant)).await
}

/// Starts it, and waits until it goes on by itself or is over.
async fn begin(host: &Host, words: &[String], input: Option<String>, given: Given<'_>) -> Result<(), Trouble> {
    begun(host, words, input).await?.map_or(Ok(()), |ended| over(&ended, given))
}

/// The same; what it ended with, if it did. It is never ended from here: an undo may take long, and one that is cut short is begun anew.
async fn begun(host: &Host, words: &[String], input: Option<String>) -> Result<Option<Ended>, Trouble> {
    let mut running = spawn(host, &host.version, words, input).map_err(Trouble::Later)?;
    let end = tokio::time::Instant::now() + BEGIN_LIMIT;
    while tokio::time::Instant::now() < end {
        tokio::select! {
            ended = &mut running => {
                let ended = ended.map_err(|e| Trouble::Later(e.to_string()))?.map_err(Trouble::Later)?;
                return Ok(Some(ended));
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
        if look(host, &host.version).await.phase == AdoptPhase::Underway {
            return Ok(None);
        }
    }
    Err(Trouble::Later("berth adopt does not get to its first step".to_owned()))
}

/// It ended at once. Whether it went forth or back, a look says. What is refused has a document that says so; whatever else ends with exit
/// code 1 was not begun, for a reason that need not be the revision's: no room, a lock that is held, a runtime that does not answer.
fn over(ended: &Ended, given: Given<'_>) -> Result<(), Trouble> {
    match (ended.code, refused(ended, given)) {
        (_, Some(trouble)) => Err(trouble),
        (Some(0 | 3 | 4), None) => Ok(()),
        (_, None) => Err(Trouble::Later(ended.said())),
    }
}

pub(super) async fn recover(host: &Host) -> Result<(), Trouble> {
    match begun(host, &words(&["adopt", "recover", "-o", "json"]), None).await? {
        Some(ended) if ended.code != Some(0) => Err(Trouble::Later(ended.said())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
