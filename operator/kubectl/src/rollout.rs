//! `kubectl berth rollout`: waits for a rollout, and writes what steers it: a field for a pause, annotations for the rest. Of a RuntimeConfig it reads
//! what it needs for that, and no more: what a newer version wrote elsewhere in it keeps nobody from pausing it.
use crate::cluster::{Cluster, not_understood};
use crate::output;
use crate::status::{condition, wave};
use anyhow::{Result, anyhow, bail};
use berth_crds::{Condition, RuntimeConfigObject, RuntimeRevision, RuntimeRevisionStatus, Verdict, WaveStatus};
use clap::{Args, Subcommand};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const UNDO: &str = "berth.dev/undo";
const RETRY: &str = "berth.dev/retry";
/// In place of a revision's name: all that nodes of the RuntimeConfig are to have.
const ALL: &str = "all";
/// How often a rollout is looked at while it is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// States that do not end by themselves: somebody has to do something.
const STUCK: [&str; 7] =
    ["RolledBack", "NothingToGoBackTo", "Halted", "NotAccepted", "NodesMissing", "NodesFrozen", "Paused"];
/// The state before `RolledBack`: nodes still have what was taken back.
const GOING_BACK: &str = "RollingBack";
const REMEDY: &str = "`kubectl get runtimeconfigs` lists them";

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tells how far it is, until it is through; exits with 1 if it will not get there: one that is taken back, when its nodes are back
    Status {
        #[command(flatten)]
        config: Name,
        /// Wait for its end
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        watch: bool,
        /// How long to wait at most, in seconds, or as in 90s, 5m and 1h30m; 0 is for ever
        #[arg(long, default_value = "0", value_parser = seconds)]
        timeout: u64,
    },
    /// Begins nothing new; going back and ImagePolicies are never paused
    Pause(Name),
    /// Goes on
    Resume(Name),
    /// Takes back what its nodes are to have: all return to the last good revision, and no other one is handed out again
    Undo {
        #[command(flatten)]
        config: Name,
        /// Take this revision back alone, where its nodes are to have several
        #[arg(long)]
        revision: Option<String>,
    },
    /// Has what its nodes are to have tried again where it failed: a bad revision by all, a good one by the nodes that it failed on
    Retry(Name),
}

/// Which.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the RuntimeConfig
    #[arg(value_name = "RUNTIMECONFIG")]
    name: String,
}

/// What the operator says of a RuntimeConfig, as far as it is about its rollout.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Told {
    observed_generation: Option<i64>,
    conditions: Vec<Condition>,
    target_revision: Option<String>,
    other_target_revisions: Vec<String>,
    summary: String,
    wave: Option<WaveStatus>,
}

impl Told {
    /// Errors: this version cannot parse it.
    fn of(config: &DynamicObject) -> Result<Self> {
        let told = serde_json::from_value::<Option<Self>>(config.data["status"].clone());
        let told = told.map_err(|e| anyhow!("RuntimeConfig {}: {}", config.name_any(), not_understood(&e)))?;
        Ok(told.unwrap_or_default())
    }
}

/// Seconds of a number alone, as kubectl takes it, or of a duration as RuntimeConfigs have it.
fn seconds(text: &str) -> Result<u64, String> {
    let alone = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = if alone { text.parse().ok() } else { berth_crds::seconds(text) };
    whole.ok_or_else(|| "must be seconds, or like 90s, 5m or 1h30m".to_owned())
}

/// Does it.
pub async fn run(cluster: &Cluster, command: Command) -> Result<ExitCode> {
    match command {
        Command::Status { config, watch, timeout } => return status(cluster, &config.name, watch, timeout).await,
        Command::Pause(Name { name }) => pause(cluster, &name, true).await?,
        Command::Resume(Name { name }) => pause(cluster, &name, false).await?,
        Command::Undo { config, revision } => undo(cluster, &config.name, revision).await?,
        Command::Retry(Name { name }) => retry(cluster, &name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn pause(cluster: &Cluster, name: &str, paused: bool) -> Result<()> {
    let before = cluster.written::<RuntimeConfigObject>(name, REMEDY).await?;
    let word = if paused { "paused" } else { "resumed" };
    if is_paused(&before) == paused {
        let already = if paused { "is paused already" } else { "is not paused" };
        bail!("runtimeconfig {name} {already}");
    }
    cluster.patch::<RuntimeConfigObject>(name, json!({"spec": {"rollout": {"paused": paused}}})).await?;
    output::text(&format!("runtimeconfig.berth.dev/{name} {word}\n"));
    Ok(())
}

fn is_paused(config: &DynamicObject) -> bool {
    config.data["spec"]["rollout"]["paused"] == true
}

async fn undo(cluster: &Cluster, name: &str, revision: Option<String>) -> Result<()> {
    let config = cluster.written::<RuntimeConfigObject>(name, REMEDY).await?;
    let targets = targets(&Told::of(&config)?);
    let mut known = Vec::new();
    for target in targets {
        // One that was removed, or that this version does not understand, must not keep the others from being taken back.
        let object: Option<RuntimeRevision> = cluster.one(&target, "").await.ok();
        known.push((target, object.and_then(|object| verdict_for(name, &object.status?))));
    }
    let revisions = taken_back(name, &known, revision.as_deref())?;
    annotate(cluster, name, UNDO, revision.as_deref().unwrap_or(ALL)).await?;
    let told = revisions.iter().map(|revision| format!("runtimeconfig.berth.dev/{name}: {revision} is taken back\n"));
    output::text(&told.collect::<String>());
    Ok(())
}

/// What the nodes of a RuntimeConfig are to have, that of most nodes first.
fn targets(status: &Told) -> Vec<String> {
    status.target_revision.iter().chain(&status.other_target_revisions).cloned().collect()
}

/// What is known of a revision, for the nodes of a RuntimeConfig: one that came through for some of them is not bad there.
fn verdict_for(name: &str, status: &RuntimeRevisionStatus) -> Option<Verdict> {
    let through = status.through_with(name).next().is_some();
    if through { Some(Verdict::Good) } else { status.verdict }
}

/// What an undo takes back of these: all that is not known to be bad already, or the one that was named. Errors: there is nothing to take back.
fn taken_back<'a>(name: &str, known: &'a [(String, Option<Verdict>)], revision: Option<&str>) -> Result<Vec<&'a str>> {
    if known.is_empty() {
        bail!("runtimeconfig {name} has no revision yet")
    }
    let asked: Vec<_> = known.iter().filter(|(target, _)| revision.is_none_or(|r| r == target)).collect();
    if let (Some(revision), true) = (revision, asked.is_empty()) {
        let targets: Vec<_> = known.iter().map(|(target, _)| target.as_str()).collect();
        bail!(
            "{revision} is not what nodes of runtimeconfig {name} are to have; they are to have {}",
            targets.join(", ")
        )
    }
    let good = asked.iter().filter(|(_, verdict)| *verdict != Some(Verdict::Bad));
    let taken: Vec<_> = good.map(|(target, _)| target.as_str()).collect();
    if taken.is_empty() {
        let all: Vec<_> = asked.iter().map(|(target, _)| target.as_str()).collect();
        bail!("{} {} taken back already", all.join(", "), if all.len() == 1 { "is" } else { "are" })
    }
    Ok(taken)
}

async fn retry(cluster: &Cluster, name: &str) -> Result<()> {
    let config = cluster.written::<RuntimeConfigObject>(name, REMEDY).await?;
    let targets = targets(&Told::of(&config)?);
    let value = match targets.as_slice() {
        [] => bail!("runtimeconfig {name} has no revision yet"),
        [target] => target,
        _ => ALL,
    };
    annotate(cluster, name, RETRY, value).await?;
    let told = targets.iter().map(|target| format!("runtimeconfig.berth.dev/{name}: {target} is tried again\n"));
    output::text(&told.collect::<String>());
    Ok(())
}

async fn annotate(cluster: &Cluster, name: &str, annotation: &str, revision: &str) -> Result<()> {
    let fields = json!({"metadata": {"annotations": {annotation: revision}}});
    cluster.patch::<RuntimeConfigObject>(name, fields).await
}

async fn status(cluster: &Cluster, name: &str, watch: bool, timeout: u64) -> Result<ExitCode> {
    let (began, mut told) = (Instant::now(), String::new());
    loop {
        let config = cluster.written::<RuntimeConfigObject>(name, REMEDY).await?;
        let (line, end) = stand(&config, &Told::of(&config)?);
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
fn stand(config: &DynamicObject, status: &Told) -> (String, Option<bool>) {
    let name = config.name_any();
    // Nobody answers requests of one that is not understood, and nothing but this is said of its generation.
    if let Some(refused) = refused(config, status) {
        let told = format!("runtimeconfig {name} does not get further: {}: {}", refused.reason, refused.message);
        return (told, Some(false));
    }
    // A request raises no generation: the operator takes it away once the status says what came of it.
    if let Some(request) = [UNDO, RETRY].iter().find(|request| config.annotations().contains_key(**request)) {
        return (format!("Waiting for the operator to answer {request} of runtimeconfig {name}..."), None);
    }
    if status.observed_generation != config.metadata.generation {
        return (format!("Waiting for the operator to look at runtimeconfig {name}..."), None);
    }
    let (ready, reason, message) = condition(&status.conditions, "Ready");
    if ready {
        return (format!("runtimeconfig {name} successfully rolled out: {}", said(status, message)), Some(true));
    }
    if STUCK.contains(&reason) {
        return (format!("runtimeconfig {name} does not get further: {reason}: {message}"), Some(false));
    }
    if reason == GOING_BACK {
        return (format!("Waiting for nodes of runtimeconfig {name} to go back: {message}..."), None);
    }
    let wave = match wave(status.wave.as_ref()) {
        none if none.is_empty() => String::new(),
        wave => format!(", wave {wave}"),
    };
    (format!("Waiting for runtimeconfig {name} to be rolled out: {}{wave}...", said(status, message)), None)
}

/// That the operator does not accept it as it is now.
fn refused<'a>(config: &DynamicObject, status: &'a Told) -> Option<&'a Condition> {
    let accepted = status.conditions.iter().find(|c| c.kind == "Accepted")?;
    let present = accepted.observed_generation == config.metadata.generation;
    (present && accepted.status == "False").then_some(accepted)
}

fn said(status: &Told, message: &str) -> String {
    match &status.target_revision {
        Some(target) => format!("{} nodes have {target}", status.summary),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: serde_json::Value) -> (String, Option<bool>) {
        asked(status, json!({}))
    }

    fn asked(status: serde_json::Value, annotations: serde_json::Value) -> (String, Option<bool>) {
        let metadata = json!({"name": "c", "generation": 2, "annotations": annotations});
        let config = written(json!({"metadata": metadata, "spec": {}, "status": status}));
        stand(&config, &Told::of(&config).unwrap())
    }

    fn written(mut object: serde_json::Value) -> DynamicObject {
        object["apiVersion"] = json!("berth.dev/v1alpha1");
        object["kind"] = json!("RuntimeConfig");
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_timeout_is_seconds_or_has_a_unit() {
        for (text, is) in [("0", 0), ("90", 90), ("30s", 30), ("5m", 300), ("1h", 3600), ("1h30m", 5400)] {
            assert_eq!(seconds(text), Ok(is));
        }
        for bad in ["", "s", "-1", "+1", "1.5m", "30m1h", "5 m", "1d", "99999999999999999999", "9999999999999999999h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    /// The words of a newer version elsewhere are nothing to whoever waits for it, pauses it or takes it back.
    #[test]
    fn a_newer_versions_words_elsewhere_hold_up_nothing() {
        let ready =
            json!({"type": "Ready", "status": "True", "reason": "Complete", "message": "m", "lastTransitionTime": ""});
        let status = json!({"observedGeneration": 2, "conditions": [ready], "targetRevision": "config-1",
            "disruption": {"class": "Hibernate"}});
        let spec = json!({"state": "Suspended", "runtime": {"turbo": true}, "rollout": {"paused": true}});
        let config = json!({"metadata": {"name": "c", "generation": 2}, "spec": spec, "status": status});
        assert!(serde_json::from_value::<RuntimeConfigObject>(config.clone()).is_err(), "this version parses it");
        let config = written(config);
        let told = Told::of(&config).unwrap();
        assert_eq!(stand(&config, &told).1, Some(true));
        assert_eq!(targets(&told), ["config-1"]);
        assert!(is_paused(&config) && !is_paused(&written(json!({"metadata": {"name": "c"}}))));
        let odd = written(json!({"metadata": {"name": "c"}, "status": {"conditions": "fine"}}));
        let why = Told::of(&odd).unwrap_err().to_string();
        assert!(why.starts_with("RuntimeConfig c: ") && why.contains("newer version"), "{why}");
    }

    /// What the status says is of before it.
    #[test]
    fn a_request_that_is_not_answered_is_waited_for() {
        for (request, ready, reason) in [(UNDO, "True", "Complete"), (RETRY, "False", "RolledBack")] {
            let ready =
                json!({"type": "Ready", "status": ready, "reason": reason, "message": "m", "lastTransitionTime": ""});
            let status = json!({"observedGeneration": 2, "conditions": [ready]});
            assert!(of(status.clone()).1.is_some());
            let line = format!("Waiting for the operator to answer {request} of runtimeconfig c...");
            assert_eq!(asked(status, json!({request: "all"})), (line, None));
        }
    }

    /// Of one that the operator does not understand it writes conditions alone, and takes no request away.
    #[test]
    fn nobody_waits_for_what_is_not_accepted() {
        let of_generation = |generation: u64, more: serde_json::Value| {
            let accepted = json!({"type": "Accepted", "status": "False", "reason": "NotUnderstood", "message": "m",
                "lastTransitionTime": "", "observedGeneration": generation});
            asked(json!({"conditions": [accepted]}), more)
        };
        let told = "runtimeconfig c does not get further: NotUnderstood: m".to_owned();
        for annotations in [json!({}), json!({UNDO: "all"})] {
            assert_eq!(of_generation(2, annotations.clone()), (told.clone(), Some(false)));
            assert_eq!(of_generation(1, annotations).1, None, "it was changed since");
        }
    }

    #[test]
    fn an_undo_takes_back_what_all_pools_are_to_have() {
        let status = json!({"targetRevision": "config-2", "otherTargetRevisions": ["config-1", "config-3"]});
        let targets = targets(&serde_json::from_value(status).unwrap());
        assert_eq!(targets, ["config-2", "config-1", "config-3"]);
        let known = |verdicts: [Option<Verdict>; 3]| targets.iter().cloned().zip(verdicts).collect::<Vec<_>>();
        let one_bad = known([Some(Verdict::Good), Some(Verdict::Bad), None]);
        assert_eq!(taken_back("c", &one_bad, None).unwrap(), ["config-2", "config-3"]);
        assert_eq!(taken_back("c", &one_bad, Some("config-3")).unwrap(), ["config-3"]);
        let why = |known: &[_], revision| taken_back("c", known, revision).unwrap_err().to_string();
        assert_eq!(why(&one_bad, Some("config-1")), "config-1 is taken back already");
        assert!(why(&one_bad, Some("config-9")).contains("are to have config-2, config-1, config-3"));
        assert_eq!(why(&known([Some(Verdict::Bad); 3]), None), "config-2, config-1, config-3 are taken back already");
        assert_eq!(why(&[], None), "runtimeconfig c has no revision yet");
    }

    /// It broke nodes of somebody else, and these have it still.
    #[test]
    fn what_is_bad_for_others_can_be_taken_back() {
        let status = json!({"verdict": "Bad", "throughFor": {"base,c": "2026-01-01T00:00:00Z"}});
        let status: RuntimeRevisionStatus = serde_json::from_value(status).unwrap();
        let of = |name: &str| taken_back(name, &[("config-1".to_owned(), verdict_for(name, &status))], None).is_ok();
        assert!(of("c") && of("base") && !of("other") && !of("bas"));
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
        let back = of(status("False", "RollingBack", 2));
        assert_eq!(
            back,
            ("Waiting for nodes of runtimeconfig c to go back: m...".to_owned(), None),
            "nodes still have it"
        );
        for mend in ["NodesFrozen", "NothingToGoBackTo"] {
            assert_eq!(of(status("False", mend, 2)).1, Some(false), "nobody waits for what somebody must mend");
        }
        let (line, end) = of(status("False", "RollingOut", 2));
        assert_eq!(
            (line.as_str(), end),
            ("Waiting for runtimeconfig c to be rolled out: 3/50 nodes have config-1, wave 2/4...", None)
        );
        assert_eq!(of(json!({})).1, None);
    }
}
