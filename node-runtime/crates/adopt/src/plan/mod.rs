//! From what is known of a node to what is to be done about it. Pure: no I/O, no clock.
//!
//! Owns: the plan's types, and their making. Must not: change or look at the node.
mod back;
mod checks;
mod configure;
mod facts;
mod overlay;
mod revision;
mod switch;

pub use back::{Found, ReturnFacts, give_back};
pub use configure::{ConfigureFacts, Settings, configure, obstacles, settings_file};
pub use facts::{Carrier, CarrierKind, Facts, Grant, KubeletProcess, Manifest, Permission, Pod, Runtime, manifest};
pub use revision::{Handed, PolicyChange, Revision, RevisionChange};
pub use switch::{is_outdated, overridden_unit};

use crate::step::{Direction, Step};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// How the kubelet of a node is started, and so how it is told of another runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A unit of systemd that kubeadm configures: kubeadm-flags.env, config.yaml, instance-config.yaml.
    Kubeadm,
    /// Any other unit of systemd.
    Systemd,
    /// Commands that whoever runs the node has given.
    Command,
}

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::Systemd => "systemd",
            Self::Command => "command",
        }
    }
}

/// How the kubelet is stopped and started: programs with their arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commands {
    /// Ends it.
    pub stop: Vec<String>,
    /// Starts it, after its configuration has changed.
    pub start: Vec<String>,
}

/// A file as it is: its text and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileState {
    /// What is in it.
    pub text: String,
    /// SHA-256 of that, in hexadecimal; filled in by whoever executes.
    #[serde(default)]
    pub sha256: String,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A file of others that changes. `None` stands for a file that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// Which.
    pub path: PathBuf,
    /// As it is before.
    pub before: Option<FileState>,
    /// As it is after.
    pub after: Option<FileState>,
    /// Whether its directory was there before all of it; filled in by whoever executes.
    #[serde(default)]
    pub directory_before: bool,
}

impl FileChange {
    /// The way back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { before: self.after.clone(), after: self.before.clone(), ..self.clone() }
    }
}

/// Where the programs go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Install {
    /// Directory with one directory a version, and `current`.
    pub prefix: PathBuf,
    /// Directory that the programs are copied from.
    pub from: PathBuf,
    /// Name of the version's directory.
    pub version: String,
    /// What `current` named before; `None` if there was none.
    pub current_before: Option<String>,
    /// Whether the version's directory was there before.
    pub staged_before: bool,
    /// Whether the prefix was there before.
    pub prefix_before: bool,
    /// Whether a daemon of this root answered before: it is left as it is, but for what it is handed.
    pub daemon_before: bool,
    /// Whether systemd runs the daemon; else `berth supervise` does.
    pub systemd: bool,
    /// Whether the unit `berth.service` was there before.
    pub unit_before: bool,
    /// Whether it was started with the node then.
    #[serde(default)]
    pub unit_enabled_before: bool,
    /// Whether a CNI configuration that the daemon has written (`spec.network.cni.confList`) stood there before: other runtimes may live by it,
    /// so that it stays what it is. One that was not there before is never seen by the runtime that has the node.
    #[serde(default)]
    pub network_before: bool,
}

/// A pod that must run again on the other side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// All that an operation needs to know to be done, undone or finished by any process, also after a restart of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Name of the operation.
    pub id: String,
    /// Which way.
    pub direction: Direction,
    /// How the kubelet is started.
    pub profile: Profile,
    /// Boot that it was made in: processes and sandboxes of another boot are gone.
    pub boot_id: String,
    /// Unix time in seconds after which it has to be walked back.
    pub deadline: u64,
    /// Who allowed it.
    pub permission: Permission,
    /// Whether the kubelet belongs to a cluster: that a kubelet which does not run just now cannot tell.
    #[serde(default)]
    pub in_cluster: bool,
    /// The runtime that the kubelet is on.
    pub from: Runtime,
    /// The runtime that it is to be on.
    pub to: Runtime,
    /// Whether the kubelet is started anew for the sake of Berth's cgroup driver, by which all of its pods are made anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// Whether a return ends Berth's pods without its daemon, which did not answer.
    #[serde(default)]
    pub without_daemon: bool,
    /// Stops and starts the kubelet.
    pub commands: Commands,
    /// The kubelet's healthz server, if it has one.
    pub healthz: Option<(String, u16)>,
    /// Files of others that change.
    pub files: Vec<FileChange>,
    /// Images that the node's static pods need.
    pub images: Vec<String>,
    /// Images of the other pods that are left on it: they are copied where they can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wished: Vec<String>,
    /// Static pods that run, and must run afterwards.
    pub pods: Vec<PodName>,
    /// What Berth sets of the kubelet's configuration afterwards, where that is what changes ([`Direction::Configure`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// The configuration, and the image policies, that Berth's daemon is handed before it has the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionChange>,
    /// Where the programs go.
    pub install: Install,
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// What whoever asked for it should know.
    pub notes: Vec<String>,
}

/// Why a node is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The setting or object.
    pub field: String,
    /// What was found there.
    pub found: String,
    /// What to do.
    pub remedy: String,
    /// What a program tells it from all others by, if it has to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// A refusal that programs know. As words these are part of what `-o json` prints (docs/adopt.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// The node runs a part of the control plane, and nobody asked for such nodes.
    ControlPlane,
}

impl Refusal {
    /// One.
    pub fn new(field: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), found: found.into(), remedy: remedy.into(), reason: None }
    }

    /// The same, for programs to know.
    #[must_use]
    pub fn known_as(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.found, self.remedy)
    }
}

/// The plan for taking the node over. Errors: everything that speaks against it.
pub fn adopt(facts: &Facts) -> Result<Plan, Vec<Refusal>> {
    let mut refusals = checks::all(facts);
    let found = checks::profile(&facts.kubelet, facts.commands.as_ref(), facts.profile);
    let profile = found.map_err(|refusal| refusals.push(refusal)).ok();
    let switched = switch::files(facts).map_err(|more| refusals.extend(more)).ok();
    let (Some((profile, commands)), Some(switched)) = (profile, switched) else { return Err(refusals) };
    if !refusals.is_empty() {
        return Err(refusals);
    }
    Ok(Plan {
        id: facts.id.clone(),
        direction: Direction::Adopt,
        profile,
        boot_id: facts.boot_id.clone(),
        deadline: facts.deadline,
        permission: facts.permission.clone(),
        in_cluster: checks::in_cluster(&facts.kubelet),
        from: facts.old.clone(),
        to: facts.new.clone(),
        restart: false,
        without_daemon: false,
        commands,
        healthz: facts.kubelet.configuration.healthz(),
        files: switched.files,
        images: facts.own_images(),
        wished: facts.wished_images(),
        pods: facts.own_pods(),
        settings: None,
        revision: facts.handed.change.clone(),
        install: facts.install.clone(),
        steps: Direction::Adopt.steps().to_vec(),
        notes: notes(facts, switched.notes),
    })
}

fn notes(facts: &Facts, of_files: Vec<String>) -> Vec<String> {
    of_files.into_iter().chain(after_a_reboot(&facts.install)).chain(facts.handed.notes.clone()).collect()
}

/// Without a service manager nobody starts the daemon with the node: then no pod would run on it any more.
fn after_a_reboot(install: &Install) -> Option<String> {
    let needed = !install.systemd && !install.daemon_before;
    needed.then(|| {
        format!(
            "without systemd nothing starts Berth after a reboot: have the node's own init run `{}/current/berth supervise` before the kubelet",
            install.prefix.display()
        )
    })
}

/// Files that a plan may create: whoever gathers facts looks whether they are there.
pub fn would_create(drop_in_dir: Option<&std::path::Path>, unit: Option<&str>) -> Vec<PathBuf> {
    switch::would_create(drop_in_dir, unit)
}

#[cfg(test)]
mod configure_tests;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::example_facts;

#[cfg(test)]
impl Plan {
    pub(crate) fn example(direction: Direction) -> Self {
        let plan = adopt(&example_facts()).unwrap();
        Self { direction, steps: direction.steps().to_vec(), ..plan }
    }
}
