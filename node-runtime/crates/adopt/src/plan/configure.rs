//! Settings of a kubelet that runs on Berth: one drop-in of Berth's own, beside those of others, and the proof that nothing of others overrides it.
//!
//! Owns: that file's name and text, and what speaks against it. Must not: read or write files, or judge which fields may be set (the
//! table of `berth_crds` does).
use super::overlay::Overlay;
use super::{
    Commands, FileChange, FileState, Install, KubeletProcess, Permission, Plan, PodName, Refusal, Runtime, checks,
};
use crate::kubelet::{API_VERSION, Configuration, ENDPOINT, KIND};
use crate::step::Direction;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Whether a kubelet asks the runtime for its cgroup driver (KEP-4033); locked since Kubernetes 1.36.
const DRIVER_GATE: &str = "KubeletCgroupDriverFromCRI";
/// Name of the drop-in: before the one that names the runtime, which is read last.
const SETTINGS: &str = "98-berth-settings.conf";
const SETTINGS_MODE: u32 = 0o644;

/// Fields of KubeletConfiguration, as they are named there.
pub type Settings = Map<String, Value>;

/// What is known of a node whose kubelet gets other settings.
#[derive(Debug, Clone)]
pub struct ConfigureFacts {
    /// Name of the operation.
    pub id: String,
    /// This boot.
    pub boot_id: String,
    /// Unix time in seconds.
    pub now: u64,
    /// Unix time in seconds after which it has to be walked back.
    pub deadline: u64,
    /// Who allows it.
    pub permission: Permission,
    /// The running kubelet.
    pub kubelet: KubeletProcess,
    /// Commands that were given.
    pub commands: Option<Commands>,
    /// Berth, as it answers.
    pub runtime: Runtime,
    /// Whether the kubelet is on it.
    pub on_berth: bool,
    /// The adoption that is in force, if the node was taken over.
    pub adopted: Option<Plan>,
    /// The change of settings that is in force, if there is one.
    pub former: Option<Plan>,
    /// Files of either name that are there: the former one's and [`settings_file`].
    pub found: Vec<(PathBuf, FileState)>,
    /// Static pods that run.
    pub pods: Vec<PodName>,
    /// What is wanted; empty takes the file away.
    pub settings: Settings,
    /// It is to be started anew even if its settings are as they are wanted: it asks the runtime for the cgroup driver at its start only.
    pub restart: bool,
}

/// Where a kubelet of that configuration is told, if it reads drop-ins.
pub fn settings_file(configuration: &Configuration) -> Option<PathBuf> {
    Some(configuration.drop_in_dir.as_ref()?.join(SETTINGS))
}

/// The plan that changes the settings; `None` if they are as they are wanted. Errors: everything that speaks against it.
pub fn configure(facts: &ConfigureFacts) -> Result<Option<Plan>, Vec<Refusal>> {
    let mut files = changes(facts).map_err(|refusal| vec![refusal])?;
    // A file that stays as it is is part of a restart: the plan says what is in force.
    files.retain(|change| differs(change) || (facts.restart && change.after.is_some()));
    if files.is_empty() && !facts.restart {
        return Ok(None);
    }
    let mut refusals = checks::readable(&facts.kubelet.configuration);
    refusals.extend(own_driver(facts));
    refusals.extend(runtime(facts));
    refusals.extend(expired(facts));
    let run = match (&facts.commands, &facts.adopted) {
        (None, Some(adopted)) => Ok((adopted.profile, adopted.commands.clone())),
        (commands, _) => checks::profile(&facts.kubelet, commands.as_ref(), None),
    };
    let run = run.map_err(|refusal| refusals.push(refusal)).ok();
    refusals.extend(overruled(&facts.kubelet.configuration, &facts.settings, &files));
    let Some((profile, commands)) = run.filter(|_| refusals.is_empty()) else { return Err(refusals) };
    let native = || Install { daemon_before: true, ..Install::default() };
    Ok(Some(Plan {
        id: facts.id.clone(),
        direction: Direction::Configure,
        profile,
        boot_id: facts.boot_id.clone(),
        deadline: facts.deadline,
        permission: facts.permission.clone(),
        in_cluster: checks::in_cluster(&facts.kubelet),
        from: facts.runtime.clone(),
        to: facts.runtime.clone(),
        restart: facts.restart,
        without_daemon: false,
        commands,
        healthz: facts.kubelet.configuration.healthz(),
        files,
        images: Vec::new(),
        wished: Vec::new(),
        pods: facts.pods.clone(),
        settings: Some(facts.settings.clone()),
        revision: None,
        install: facts.adopted.as_ref().map_or_else(native, |adopted| adopted.install.clone()),
        steps: Direction::Configure.steps().to_vec(),
        notes: Vec::new(),
    }))
}

/// What would keep a kubelet from having these settings, whichever runtime it is on.
pub fn obstacles(configuration: &Configuration, settings: &Settings) -> Vec<Refusal> {
    match settings_file(configuration) {
        _ if settings.is_empty() => Vec::new(),
        None => vec![no_directory()],
        Some(path) => overruled(configuration, settings, &[change(&path, None, Some(text(settings)))]),
    }
}

/// The files, changed or not: one of another directory goes, the one that the kubelet reads has the settings.
fn changes(facts: &ConfigureFacts) -> Result<Vec<FileChange>, Refusal> {
    let found = |path: &Path| facts.found.iter().find(|(place, _)| place == path).map(|(_, state)| state.clone());
    let former = facts.former.as_ref().and_then(|plan| plan.files.iter().find(|change| change.after.is_some()));
    let wanted = settings_file(&facts.kubelet.configuration);
    let mut changes = Vec::new();
    if let Some(former) = former.filter(|former| wanted.as_ref() != Some(&former.path)) {
        changes.push(change(&former.path, found(&former.path), None));
    }
    match wanted {
        None if facts.settings.is_empty() => {}
        None => return Err(no_directory()),
        Some(path) => {
            let before = found(&path);
            if before.is_some() && former.is_none_or(|former| former.path != path) {
                return Err(Refusal::new(
                    path.display().to_string(),
                    "is there already, and no change of settings is in force that could have made it",
                    "remove or rename it",
                ));
            }
            changes.push(change(&path, before, (!facts.settings.is_empty()).then(|| text(&facts.settings))));
        }
    }
    Ok(changes)
}

fn differs(change: &FileChange) -> bool {
    let text = |state: &Option<FileState>| state.as_ref().map(|state| state.text.clone());
    text(&change.before) != text(&change.after)
}

/// One that does not ask the runtime keeps its driver over every start.
fn own_driver(facts: &ConfigureFacts) -> Option<Refusal> {
    let deaf = facts.restart && facts.kubelet.configuration.gate(DRIVER_GATE) == Some(false);
    deaf.then(|| {
        Refusal::new(
            format!("featureGates.{DRIVER_GATE}"),
            "is false: the kubelet would not ask the runtime for its cgroup driver when it starts",
            "take the gate out of its configuration (it is on by default since Kubernetes 1.31)",
        )
    })
}

fn no_directory() -> Refusal {
    Refusal::new(
        "--config-dir",
        "is not given to the kubelet, so there is no place for a file of settings beside its own",
        "start the kubelet with --config-dir DIR (Kubernetes 1.30 and later; kubeadm: KUBELET_EXTRA_ARGS)",
    )
}

fn change(path: &Path, before: Option<FileState>, text: Option<String>) -> FileChange {
    let (mode, uid, gid) = before.as_ref().map_or((SETTINGS_MODE, 0, 0), |state| (state.mode, state.uid, state.gid));
    let after = text.map(|text| FileState { text, sha256: String::new(), mode, uid, gid });
    FileChange { path: path.to_owned(), before, after, directory_before: true }
}

/// YAML with JSON's values, which YAML has too.
fn text(settings: &Settings) -> String {
    let mut text = format!(
        "# Written by Berth (spec.kubelet.config of a RuntimeConfig, or berth adopt kubelet), which writes it anew.\napiVersion: {API_VERSION}\nkind: {KIND}\n"
    );
    let mut fields: Vec<_> = settings.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text
}

fn runtime(facts: &ConfigureFacts) -> Option<Refusal> {
    (!facts.on_berth).then(|| {
        Refusal::new(
            ENDPOINT,
            format!("is {:?}: the pods of this node are not Berth's", facts.kubelet.configuration.endpoint()),
            "take the node over first (`berth adopt start`)",
        )
    })
}

/// No pod ends, so that a person needs nobody's word; a grant that is given must be good.
fn expired(facts: &ConfigureFacts) -> Option<Refusal> {
    match &facts.permission {
        Permission::Grant(_) => checks::permission(&facts.permission, false, facts.now),
        Permission::Person | Permission::Nobody => None,
    }
}

/// With the files as they will be, the kubelet must be told what was meant: by no flag, and by no later drop-in, something else.
fn overruled(configuration: &Configuration, settings: &Settings, files: &[FileChange]) -> Vec<Refusal> {
    let read = Configuration::read(configuration.arguments.clone(), &Overlay { configuration, changes: files });
    let ours = settings_file(configuration).unwrap_or_default();
    let overruled = settings.iter().filter_map(|(field, value)| {
        if let Some(flag) = configuration.flag_for(field, value) {
            return Some(Refusal::new(
                format!("--{flag}"),
                format!("is on the kubelet's command line, which wins over every file, and {field} is to be set"),
                format!("take the flag off the kubelet's command line and restart it, or leave {field} out"),
            ));
        }
        if read.says(field, value) {
            return None;
        }
        let later = read.drop_ins.iter().find(|source| source.path > ours && source.fields.contains_key(field));
        let place = later.map_or_else(|| field.clone(), |source| source.path.display().to_string());
        Some(Refusal::new(
            place,
            format!("has the last word: {field} would be {}", read.settings.get(field).unwrap_or(&Value::Null)),
            format!("take {field} out of it, or rename it so that it is read before {SETTINGS}"),
        ))
    });
    overruled.collect()
}
