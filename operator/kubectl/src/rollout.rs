//! `kubectl berth rollout`: waits for a rollout, and writes what steers it: a field for a pause, annotations for the rest.
use crate::cluster::Cluster;
use crate::output;
use crate::status::{condition, wave};
use anyhow::{Result, bail};
use berth_crds::{RuntimeConfigObject, RuntimeConfigStatus};
use clap::{Args, Subcommand};
use kube::ResourceExt;
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const UNDO: &str = "berth.dev/undo";
const RETRY: &str = "berth.dev/retry";
/// How often a rollout is looked at while it is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// States that do not end by themselves: somebody has to do something.
const STUCK: [&str; 6] = ["RolledBack", "Halted", "NotAccepted", "NodesMissing", "NodesFrozen", "Paused"];
const REMEDY: &str = "`kubectl get runtimeconfigs` lists them";

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tells how far it is, until it is through; exits with 1 if it will not get there
    Status {
        #[command(flatten)]
        config: Name,
        /// Wait for its end
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        watch: bool,
        /// How long to wait at most, in seconds; 0 is for ever
        #[arg(long, default_value_t = 0)]
        timeout: u64,
    },
    /// Begins nothing new; going back and ImagePolicies are never paused
    Pause(Name),
    /// Goes on
    Resume(Name),
    /// Takes the revision back that its nodes are to have: all return to the last good one, and it is never handed out again
    Undo(Name),
    /// Has a revision tried again that failed: a bad one by all, a good one by the nodes that it failed on
    Retry(Name),
}

/// Which.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the RuntimeConfig
    #[arg(value_name = "RUNTIMECONFIG")]
    name: String,
}

/// Does it.
pub async fn run(cluster: &Cluster, command: Command) -> Result<ExitCode> {
    match command {
        Command::Status { config, watch, timeout } => return status(cluster, &config.name, watch, timeout).await,
        Command::Pause(Name { name }) => pause(cluster, &name, true).await?,
        Command::Resume(Name { name }) => pause(cluster, &name, false).await?,
        Command::Undo(Name { name }) => undo(cluster, &name).await?,
        Command::Retry(Name { name }) => retry(cluster, &name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn pause(cluster: &Cluster, name: &str, paused: bool) -> Result<()> {
    let before: RuntimeConfigObject = cluster.one(name, REMEDY).await?;
    let word = if paused { "paused" } else { "resumed" };
    if before.spec.rollout.paused.unwrap_or(false) == paused {
        let already = if paused { "is paused already" } else { "is not paused" };
        bail!("runtimeconfig {name} {already}");
    }
    cluster.patch::<RuntimeConfigObject>(name, json!({"spec": {"rollout": {"paused": paused}}})).await?;
    output::text(&format!("runtimeconfig.berth.dev/{name} {word}\n"));
    Ok(())
}

async fn undo(cluster: &Cluster, name: &str) -> Result<()> {
    let config: RuntimeConfigObject = cluster.one(name, REMEDY).await?;
    let status = config.status.unwrap_or_default();
    let Some(target) = status.target_revision.clone() else { bail!("runtimeconfig {name} has no revision yet") };
    if condition(&status.conditions, "RolledBack").0 {
        bail!("{target} is taken back already");
    }
    annotate(cluster, name, UNDO, &target).await?;
    output::text(&format!("runtimeconfig.berth.dev/{name}: {target} is taken back\n"));
    Ok(())
}

async fn retry(cluster: &Cluster, name: &str) -> Result<()> {
    let config: RuntimeConfigObject = cluster.one(name, REMEDY).await?;
    let Some(target) = config.status.and_then(|s| s.target_revision) else {
        bail!("runtimeconfig {name} has no revision yet")
    };
    annotate(cluster, name, RETRY, &target).await?;
    output::text(&format!("runtimeconfig.berth.dev/{name}: {target} is tried again\n"));
    Ok(())
}

async fn annotate(cluster: &Cluster, name: &str, annotation: &str, revision: &str) -> Result<()> {
    let fields = json!({"metadata": {"annotations": {annotation: revision}}});
    cluster.patch::<RuntimeConfigObject>(name, fields).await.map(drop)
}

async fn status(cluster: &Cluster, name: &str, watch: bool, timeout: u64) -> Result<ExitCode> {
    let (began, mut told) = (Instant::now(), String::new());
    loop {
        let config: RuntimeConfigObject = cluster.one(name, REMEDY).await?;
        let (line, end) = stand(&config);
        if line != told {
            output::text(&format!("{line}\n"));
            told = line;
        }
        match end {
            Some(true) => return Ok(ExitCode::SUCCESS),
            Some(false) => return Ok(ExitCode::FAILURE),
            None if !watch => return Ok(ExitCode::SUCCESS),
            None if timeout > 0 && began.elapsed() >= Duration::from_secs(timeout) => {
                bail!("it was not through within {timeout} s")
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Where a rollout stands in words, and whether that is an end: a good one or another.
fn stand(config: &RuntimeConfigObject) -> (String, Option<bool>) {
    let (name, status) = (config.name_any(), config.status.clone().unwrap_or_default());
    if status.observed_generation != config.metadata.generation {
        return (format!("Waiting for the operator to look at runtimeconfig {name}..."), None);
    }
    let (ready, reason, message) = condition(&status.conditions, "Ready");
    if ready {
        return (format!("runtimeconfig {name} successfully rolled out: {}", said(&status, message)), Some(true));
    }
    if STUCK.contains(&reason) {
        return (format!("runtimeconfig {name} does not get further: {reason}: {message}"), Some(false));
    }
    let wave = match wave(status.wave.as_ref()) {
        none if none.is_empty() => String::new(),
        wave => format!(", wave {wave}"),
    };
    (format!("Waiting for runtimeconfig {name} to be rolled out: {}{wave}...", said(&status, message)), None)
}

fn said(status: &RuntimeConfigStatus, message: &str) -> String {
    match &status.target_revision {
        Some(target) => format!("{} nodes have {target}", status.summary),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: serde_json::Value) -> (String, Option<bool>) {
        let object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "c", "generation": 2}, "spec": {},
            "status": status});
        stand(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn only_what_is_said_of_the_present_generation_is_an_end() {
        let status = |ready: &str, reason: &str, generation: u64| {
            let ready =
                json!({"type": "Ready", "status": ready, "reason": reason, "message": "m", "lastTransitionTime": ""});
            json!({"observedGeneration": generation, "conditions": [ready], "summary": "3/50", "targetRevision": "config-1",
                "wave": {"index": 2, "total": 4}})
        };
        assert_eq!(of(status("True", "Complete", 1)).1, None);
        assert_eq!(of(status("True", "Complete", 2)).1, Some(true));
        assert_eq!(
            of(status("False", "RolledBack", 2)),
            ("runtimeconfig c does not get further: RolledBack: m".to_owned(), Some(false))
        );
        assert_eq!(of(status("False", "NodesFrozen", 2)).1, Some(false), "nobody waits for what somebody must mend");
        let (line, end) = of(status("False", "RollingOut", 2));
        assert_eq!(
            (line.as_str(), end),
            ("Waiting for runtimeconfig c to be rolled out: 3/50 nodes have config-1, wave 2/4...", None)
        );
        assert_eq!(of(json!({})).1, None);
    }
}
