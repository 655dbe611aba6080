//! The revision that Berth is handed before the node is taken over: reading it, what speaks against it, and what Berth will be with it.
//!
//! Owns: that, for the plan. Handing over and taking back are a step's (`steps/revision.rs`). Must not: change anything.
use super::runtime::Peer;
use crate::commands::connect::{self, said};
use crate::layout::Layout;
use crate::node_files;
use crate::serve::wire;
use anyhow::{Context, Result, anyhow};
use berth_adopt::Refusal;
use berth_adopt::plan::{self, Handed, RevisionChange, Runtime};
use berth_cgroups::Driver;
use berth_model::ErrorKind;
use berth_proto::node::{PreflightRevisionRequest, PreflightRevisionResponse};
use berth_settings::{Class, Revision, Revisions, Settings};
use serde::Deserialize;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// Longest object, in bytes: a revision of the largest size as kubectl prints it, with what managers and the status add.
const MAX_OBJECT: u64 = 4 << 20;
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

/// Reads a file, or standard input for `-`. Errors: it is not there, no configuration, or not what its name says.
pub(super) fn read(path: &Path) -> Result<Revision, Refusal> {
    let what = format!("--revision {}", path.display());
    let text = if path == Path::new("-") { standard_input() } else { node_files::exact(path, MAX_OBJECT) };
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
    io::stdin().take(MAX_OBJECT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_OBJECT {
        return Err(io::Error::other(format!("is longer than {MAX_OBJECT} bytes")));
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Revision, String> {
    let object: Object = serde_json::from_str(text).map_err(|e| format!("is no RuntimeRevision in JSON: {e}"))?;
    if object.kind != "RuntimeRevision" {
        return Err(format!("kind: is {}, must be RuntimeRevision", object.kind));
    }
    let name = &object.metadata.name;
    let revision = Revision::parse(name, &object.spec.to_string()).map_err(|e| e.message().to_owned())?;
    if revision.content.runtime.is_none() {
        return Err(format!("RuntimeRevision {name} is a set of policies, must be a configuration"));
    }
    Ok(revision)
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

/// What Berth is, or will be, with that revision, if one was given.
pub(super) async fn berth(layout: &Layout, given: Option<Result<Revision, Refusal>>) -> Result<Berth> {
    let mut handed = Handed::default();
    let revision = given.and_then(|given| given.map_err(|refusal| handed.unfit.push(refusal)).ok());
    let socket = layout.cri_socket();
    let Ok(mut peer) = Peer::connect(&socket).await else {
        let driver = starts(layout, revision.as_ref(), &mut handed)?;
        let version = berth_engine::VERSION.to_owned();
        let runtime = Runtime { socket, name: "berth".into(), version, cgroup_driver: driver };
        return Ok(Berth { runtime, before: false, handed });
    };
    let runtime = peer.who(&socket).await.context("Berth's daemon")?;
    if let Some(revision) = &revision {
        runs(layout, revision, &runtime, &mut handed).await?;
    }
    Ok(Berth { runtime, before: true, handed })
}

/// A daemon that does not run will start with it. Its cgroup driver, where nothing speaks against it.
fn starts(layout: &Layout, revision: Option<&Revision>, handed: &mut Handed) -> Result<Option<String>> {
    let accepted = wire::accepted(layout);
    let next = berth_settings::next_start(&layout.etc, &accepted, revision);
    let Some(revision) = revision else {
        if !handed.unfit.is_empty() {
            return Ok(None);
        }
        let settings = next.map_err(|e| anyhow!("documents of {}: {e}", layout.etc.display()))?;
        return Ok(Some(driver(&settings)));
    };
    match next.and_then(|settings| wire::fit(layout, &settings).map(|()| settings)) {
        Ok(settings) => {
            let former = berth_settings::applied(&accepted).map_err(|e| anyhow!("{e}"))?;
            handed.change = Some(change(revision, former)?);
            Ok(Some(driver(&settings)))
        }
        // A disk that fails says nothing of a revision.
        Err(e) if e.kind() == ErrorKind::Internal => Err(anyhow!("RuntimeRevision {}: {e}", revision.name)),
        Err(e) => {
            handed.unfit.push(unfit(revision, e.message()));
            Ok(None)
        }
    }
}

/// A daemon that runs is asked, as for each revision.
async fn runs(layout: &Layout, revision: &Revision, runtime: &Runtime, handed: &mut Handed) -> Result<()> {
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
    handed.change = Some(change(revision, former)?);
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
    let remedy = "mend it in the RuntimeConfig that the revision comes from; nothing was changed";
    Refusal::new(format!("--revision {}", revision.name), format!("does not fit: {problem}"), remedy)
}

fn driver(settings: &Settings) -> String {
    let name = match berth_engine::driver(settings) {
        Driver::Systemd => "systemd",
        Driver::Cgroupfs => "cgroupfs",
    };
    name.to_owned()
}

fn change(wanted: &Revision, before: Revisions) -> Result<RevisionChange> {
    Ok(RevisionChange {
        wanted: planned(wanted)?,
        former: before.configuration.as_ref().map(planned).transpose()?,
        policies_before: before.policies.is_some(),
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
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As the agent hands it over: name and spec, and nothing else that counts.
    fn object(name: &str, spec: &Value) -> String {
        json!({"kind": "RuntimeRevision", "metadata": {"name": name, "uid": "u"}, "spec": spec, "status": {}})
            .to_string()
    }

    /// A spec with the name that follows from it.
    fn named(spec: &Value) -> (String, String) {
        let told = parse(&object("config-0", spec)).unwrap_err();
        let name = told.split_whitespace().find_map(|word| word.strip_suffix(';').filter(|w| w.starts_with("config-")));
        (name.unwrap().to_owned(), object(name.unwrap(), spec))
    }

    fn configuration(config: &Value) -> Value {
        json!({"runtime": {"version": "0.1.0", "config": config}})
    }

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        std::fs::create_dir_all(&layout.lib).unwrap();
        (dir, layout)
    }

    #[test]
    fn a_file_is_a_configuration_that_is_what_its_name_says() {
        let spec = configuration(&json!({"runtime": {"pidsLimit": 70}}));
        let (name, text) = named(&spec);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revision.json");
        std::fs::write(&path, &text).unwrap();
        let revision = read(&path).unwrap();
        assert_eq!((&revision.name, revision.settings().unwrap().pids_limit), (&name, Some(70)));
        assert_eq!(recorded(&planned(&revision).unwrap()).unwrap(), revision, "through the journal");
        let policies = parse(&object("policy-0", &json!({"policies": []}))).unwrap_err();
        let of = policies.split_whitespace().find_map(|word| word.strip_suffix(';')).unwrap().to_owned();
        for (text, words) in [
            (text.replace("70", "71"), "was changed"),
            (text[..text.len() / 2].to_owned(), "no RuntimeRevision"),
            (text.replace("RuntimeRevision", "RuntimeConfig"), "must be RuntimeRevision"),
            (object(&of, &json!({"policies": []})), "must be a configuration"),
        ] {
            std::fs::write(&path, text).unwrap();
            let refusal = read(&path).unwrap_err();
            assert!(refusal.found.contains(words) && refusal.field.contains("revision.json"), "{refusal}");
        }
        assert!(read(&dir.path().join("gone")).unwrap_err().found.contains("cannot be read"));
    }

    async fn looked(layout: &Layout, config: &Value) -> Berth {
        let given = parse(&named(&configuration(config)).1).unwrap();
        berth(layout, Some(Ok(given))).await.unwrap()
    }

    #[tokio::test]
    async fn a_plan_is_made_with_what_the_daemon_will_start_with() {
        let (_dir, layout) = layout();
        let documents = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: a}\n\
            spec: {runtime: {cgroupManager: Cgroupfs}}\n";
        std::fs::create_dir_all(&layout.etc).unwrap();
        std::fs::write(layout.etc.join("a.yaml"), documents).unwrap();
        let without = berth(&layout, None).await.unwrap();
        assert_eq!((without.runtime.cgroup_driver.as_deref(), without.before), (Some("cgroupfs"), false));
        let with = looked(&layout, &json!({"runtime": {"cgroupManager": "Systemd"}})).await;
        assert_eq!(with.runtime.cgroup_driver.as_deref(), Some("systemd"));
        let change = with.handed.change.unwrap();
        assert!(with.handed.unfit.is_empty() && change.former.is_none() && !change.policies_before);

        // What lies there already counts without one, and is what is put back.
        let accepted = wire::accepted(&layout);
        berth_settings::hand_over(&accepted, recorded(&change.wanted).unwrap()).unwrap();
        assert_eq!(berth(&layout, None).await.unwrap().runtime.cgroup_driver.as_deref(), Some("systemd"));
        let other = looked(&layout, &json!({"runtime": {"cgroupManager": "Cgroupfs"}})).await;
        assert_eq!(other.handed.change.unwrap().former, Some(change.wanted));
    }

    #[tokio::test]
    async fn what_a_daemon_would_not_start_with_is_refused_with_the_field() {
        let (_dir, layout) = layout();
        for (config, field) in [
            (json!({"runtime": {"turbo": true}}), "turbo"),
            (json!({"network": {"mode": "Builtin", "subnet": "10.85.0.5/24"}}), "spec.network.subnet"),
            (json!({"runtime": {"pidsLimit": 0}}), "pidsLimit"),
        ] {
            let found = looked(&layout, &config).await;
            let told = found.handed.unfit.iter().map(ToString::to_string).collect::<String>();
            assert!(found.handed.change.is_none() && told.contains(field), "{field}: {told}");
            assert_eq!(found.runtime.cgroup_driver, None, "nothing is said of it");
        }
        let refused = berth(&layout, Some(Err(Refusal::new("--revision", "is torn", "mend it")))).await.unwrap();
        assert_eq!((refused.handed.unfit.len(), refused.handed.change), (1, None));
        assert!(std::fs::read_dir(&layout.lib).unwrap().next().is_none(), "looking changes nothing");
    }
}
