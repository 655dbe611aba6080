//! The revisions that Berth is handed before the node is taken over, a configuration and the image policies: reading them, what speaks against
//! them, and what Berth will be with them.
//!
//! Owns: that, for the plan. Handing over and taking back are a step's (`steps/revision.rs`). Must not: change anything.
mod denied;

use super::runtime::Peer;
use crate::commands::connect::{self, said};
use crate::layout::Layout;
use crate::node_files;
use crate::serve::wire;
use anyhow::{Context, Result, anyhow};
use berth_adopt::Refusal;
use berth_adopt::plan::{self, Handed, PolicyChange, RevisionChange, Runtime};
use berth_cgroups::Driver;
use berth_model::ErrorKind;
use berth_proto::node::{PreflightRevisionRequest, PreflightRevisionResponse};
use berth_settings::{Class, Revision, Revisions, Settings};
use serde::Deserialize;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use denied::denied;

/// Longest file, in bytes: two revisions of the largest size as kubectl prints them, with what managers and the status add.
const MAX_FILE: u64 = 8 << 20;
/// Most revisions that a file is looked through for: one of each kind is of use.
const MAX_ITEMS: usize = 8;
/// How long the daemon may take to judge one.
const LIMIT: Duration = Duration::from_secs(30);

/// A RuntimeRevision as the API server has it.
#[derive(Deserialize)]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: serde_json::Value,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// What was given: a configuration, and the image policies or none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub(super) configuration: Revision,
    policies: Option<Revision>,
}

impl Given {
    fn all(&self) -> Revisions {
        Revisions { configuration: Some(self.configuration.clone()), policies: self.policies.clone() }
    }
}

/// Reads files, `-` is standard input; `None` without any. Errors: one is not there, or has what is not what its name says; there is no
/// configuration among them, or two of a kind.
pub(super) fn read(paths: &[PathBuf]) -> Option<Result<Given, Refusal>> {
    let mut found = Vec::new();
    for path in paths {
        match read_one(path) {
            Ok(revisions) => found.extend(revisions),
            Err(refusal) => return Some(Err(refusal)),
        }
    }
    (!paths.is_empty()).then(|| given(found))
}

fn read_one(path: &Path) -> Result<Vec<Revision>, Refusal> {
    let what = format!("--revision {}", path.display());
    let text = if path == Path::new("-") { standard_input() } else { node_files::exact(path, MAX_FILE) };
    let text = text.map_err(|e| {
        let remedy = "name a file with the RuntimeRevision as JSON: kubectl get runtimerevision NAME -o json";
        Refusal::new(&what, format!("cannot be read: {e}"), remedy)
    })?;
    parse(&text).map_err(|problem| {
        Refusal::new(&what, problem, "give it as the API server has it: kubectl get runtimerevision NAME -o json")
    })
}

fn standard_input() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("is longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// One object, or a list of them as kubectl prints several.
fn parse(text: &str) -> Result<Vec<Revision>, String> {
    let no_json = |e: serde_json::Error| format!("is no RuntimeRevision in JSON: {e}");
    let mut value: serde_json::Value = serde_json::from_str(text).map_err(no_json)?;
    let objects = match value.get_mut("items").map(serde_json::Value::take) {
        Some(serde_json::Value::Array(items)) if items.len() <= MAX_ITEMS => items,
        Some(_) => return Err(format!("items: must be a list of at most {MAX_ITEMS} RuntimeRevisions")),
        None => vec![value],
    };
    let revision = |object| -> Result<Revision, String> {
        let object: Object = serde_json::from_value(object).map_err(no_json)?;
        if object.kind != "RuntimeRevision" {
            return Err(format!("kind: is {}, must be RuntimeRevision", object.kind));
        }
        Revision::parse(&object.metadata.name, &object.spec.to_string()).map_err(|e| e.message().to_owned())
    };
    objects.into_iter().map(revision).collect()
}

fn given(found: Vec<Revision>) -> Result<Given, Refusal> {
    let (mut configurations, mut policies): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|revision| revision.content.runtime.is_some());
    for (kind, all) in [("configurations", &configurations), ("sets of policies", &policies)] {
        if let [one, other, ..] = &all[..] {
            let problem = format!("has two {kind}, {} and {}", one.name, other.name);
            return Err(Refusal::new("--revision", problem, "give the one that the node is to have"));
        }
    }
    let policies = policies.pop();
    let configuration = configurations.pop().ok_or_else(|| {
        let problem = match &policies {
            Some(policies) => format!("has the set of policies {}, and no configuration", policies.name),
            None => "has no RuntimeRevision".to_owned(),
        };
        Refusal::new("--revision", problem, "give the configuration that the node is to have as well")
    })?;
    Ok(Given { configuration, policies })
}

/// Berth, as a plan has it.
pub(super) struct Berth {
    /// As it answers, or as it will.
    pub(super) runtime: Runtime,
    /// Whether its daemon runs already.
    pub(super) before: bool,
    /// What it is handed.
    pub(super) handed: Handed,
}

/// What Berth is, or will be, with what was given, if anything was.
pub(super) async fn berth(layout: &Layout, given: Option<Result<Given, Refusal>>) -> Result<Berth> {
    let mut handed = Handed::default();
    let given = given.and_then(|given| given.map_err(|refusal| handed.unfit.push(refusal)).ok());
    let socket = layout.cri_socket();
    let Ok(mut peer) = Peer::connect(&socket).await else {
        let driver = starts(layout, given.as_ref(), &mut handed)?;
        let version = berth_engine::VERSION.to_owned();
        let runtime = Runtime { socket, name: "berth".into(), version, cgroup_driver: driver };
        return Ok(Berth { runtime, before: false, handed });
    };
    let runtime = peer.who(&socket).await.context("Berth's daemon")?;
    if let Some(given) = &given {
        runs(layout, given, &runtime, &mut handed).await?;
    }
    Ok(Berth { runtime, before: true, handed })
}

/// A daemon that does not run will start with it. Its cgroup driver, where nothing speaks against it.
fn starts(layout: &Layout, given: Option<&Given>, handed: &mut Handed) -> Result<Option<String>> {
    let accepted = wire::accepted(layout);
    let next = |handed: Revisions| berth_settings::next_start(&layout.etc, &accepted, handed);
    let Some(given) = given else {
        if !handed.unfit.is_empty() {
            return Ok(None);
        }
        let settings = next(Revisions::default()).map_err(|e| anyhow!("documents of {}: {e}", layout.etc.display()))?;
        return Ok(Some(driver(&settings)));
    };
    let mut found = None;
    // The configuration by itself first: what speaks against both then speaks against the policies.
    for revision in [Some(&given.configuration), given.policies.as_ref()].into_iter().flatten() {
        let of_policies = given.policies.as_ref() == Some(revision);
        let all = if of_policies { given.all() } else { Revisions::of(revision.clone()) };
        match next(all).and_then(|settings| wire::fit(layout, &settings).map(|()| settings)) {
            Ok(settings) => found = Some(driver(&settings)),
            // A disk that fails says nothing of a revision.
            Err(e) if e.kind() == ErrorKind::Internal => return Err(anyhow!("RuntimeRevision {}: {e}", revision.name)),
            Err(e) => {
                handed.unfit.push(unfit(revision, e.message()));
                return Ok(None);
            }
        }
    }
    handed.change = Some(change(given, berth_settings::applied(&accepted).map_err(|e| anyhow!("{e}"))?)?);
    Ok(found)
}

/// A daemon that runs is asked, as for each revision.
async fn runs(layout: &Layout, given: &Given, runtime: &Runtime, handed: &mut Handed) -> Result<()> {
    let revision = &given.configuration;
    if let Some(policies) = &given.policies
        && let Err(refusal) = preflight(layout, policies).await?
    {
        handed.unfit.push(refusal);
        return Ok(());
    }
    let changes = match preflight(layout, revision).await? {
        Ok(answer) => answer.changes,
        Err(refusal) => {
            handed.unfit.push(refusal);
            return Ok(());
        }
    };
    let wanted = driver(&revision.settings().map_err(|e| anyhow!("{e}"))?);
    if runtime.cgroup_driver.as_ref().is_some_and(|told| *told != wanted) {
        handed.unfit.push(Refusal::new(
            "spec.runtime.cgroupManager",
            format!(
                "comes to {wanted} in {}, and Berth's daemon, which runs already, has {}",
                revision.name,
                runtime.cgroup_driver.as_deref().unwrap_or_default()
            ),
            "end that daemon: `berth adopt start` starts one that has the revision",
        ));
        return Ok(());
    }
    // The driver is the same, as was seen above: no change of it is a drain here.
    let restart = Class::DaemonRestart.to_string();
    let waiting: Vec<_> = changes.into_iter().filter(|c| c.class == restart).map(|c| c.field).collect();
    if !waiting.is_empty() {
        handed.notes.push(format!(
            "Berth's daemon, which runs already, has {} of {} after its next start only",
            waiting.join(", "),
            revision.name
        ));
    }
    let former = berth_settings::applied(&wire::accepted(layout)).map_err(|e| anyhow!("{e}"))?;
    handed.change = Some(change(given, former)?);
    Ok(())
}

/// What the daemon says of it.
async fn preflight(layout: &Layout, revision: &Revision) -> Result<Result<PreflightRevisionResponse, Refusal>> {
    let content = serde_json::to_string(&revision.content)?;
    let request = PreflightRevisionRequest { name: revision.name.clone(), content };
    let mut node = connect::node(layout).await.context("Berth's daemon")?;
    let asked = tokio::time::timeout(LIMIT, node.preflight_revision(request)).await;
    match asked.map_err(|_| anyhow!("Berth's daemon does not answer within {} s", LIMIT.as_secs()))? {
        Ok(answer) => Ok(Ok(answer.into_inner())),
        Err(status) if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition) => {
            Ok(Err(unfit(revision, status.message())))
        }
        Err(status) => Err(said(status)).context("Berth's daemon"),
    }
}

fn unfit(revision: &Revision, problem: &str) -> Refusal {
    let remedy = match revision.content.policies {
        Some(_) => "mend it in the ImagePolicy that it names; nothing was changed",
        None => "mend it in the RuntimeConfig that the revision comes from; nothing was changed",
    };
    Refusal::new(format!("--revision {}", revision.name), format!("does not fit: {problem}"), remedy)
}

fn driver(settings: &Settings) -> String {
    let name = match berth_engine::driver(settings) {
        Driver::Systemd => "systemd",
        Driver::Cgroupfs => "cgroupfs",
    };
    name.to_owned()
}

fn change(given: &Given, before: Revisions) -> Result<RevisionChange> {
    let former = |revision: &Option<Revision>| revision.as_ref().map(planned).transpose();
    let policies = given.policies.as_ref().map(|policies| {
        Ok::<_, anyhow::Error>(PolicyChange { wanted: planned(policies)?, former: former(&before.policies)? })
    });
    Ok(RevisionChange {
        wanted: planned(&given.configuration)?,
        former: former(&before.configuration)?,
        policies_before: before.policies.is_some(),
        policies: policies.transpose()?,
    })
}

fn planned(revision: &Revision) -> Result<plan::Revision> {
    let content = serde_json::to_value(&revision.content).with_context(|| revision.name.clone())?;
    Ok(plan::Revision { name: revision.name.clone(), content })
}

/// A revision out of the journal. Errors: its content is not what its name says.
pub(super) fn recorded(revision: &plan::Revision) -> Result<Revision> {
    Revision::parse(&revision.name, &revision.content.to_string()).map_err(|e| anyhow!("{e}"))
}

#[cfg(test)]
mod tests;
