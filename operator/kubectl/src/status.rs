//! `kubectl berth status`: how far each RuntimeConfig and ImagePolicy is.
use crate::cluster::{Cluster, Listed};
use crate::output::{self, Format, table};
use anyhow::Result;
use berth_crds::{Condition, ImagePolicyObject, RuntimeConfigObject, WaveStatus};
use serde::Serialize;

/// What is said of an object that is not understood.
const UNKNOWN: &str = "Unknown";

/// What is said of all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    runtime_configs: Vec<Config>,
    image_policies: Vec<Policy>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    name: String,
    ready: bool,
    reason: String,
    message: String,
    wave: String,
    updated: String,
    ready_nodes: u32,
    degraded_nodes: u32,
    disruption: String,
    target_revision: Option<String>,
    last_known_good: Option<String>,
    /// Of one that this version cannot parse, why: nothing else is known of it.
    not_understood: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    name: String,
    mode: String,
    ready: bool,
    reason: String,
    message: String,
    in_force: String,
    denied: u64,
    warned: u64,
    /// Of one that this version cannot parse, why: nothing else is known of it.
    not_understood: Option<String>,
}

/// Tells it.
pub async fn run(cluster: &Cluster, format: Option<Format>) -> Result<()> {
    let (configs, policies) = (cluster.all::<RuntimeConfigObject>().await?, cluster.all::<ImagePolicyObject>().await?);
    let status = Status {
        runtime_configs: configs.iter().map(config).collect(),
        image_policies: policies.iter().map(policy).collect(),
    };
    match format {
        Some(format) => output::document(&status, format),
        None => {
            output::text(&tables(&status));
            Ok(())
        }
    }
}

/// A condition; of one that is not there, that nobody has looked at the object yet.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> (bool, &'a str, &'a str) {
    let found = conditions.iter().find(|c| c.kind == kind);
    found.map_or((false, "Unseen", "the operator has not looked at it yet"), |c| {
        (c.status == "True", &c.reason, &c.message)
    })
}

/// `2/4`, with the end of its soak.
pub fn wave(wave: Option<&WaveStatus>) -> String {
    let soak = |w: &WaveStatus| w.soak_until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
    wave.map(|w| format!("{}/{}{}", w.index, w.total, soak(w))).unwrap_or_default()
}

fn config(listed: &Listed<RuntimeConfigObject>) -> Config {
    let name = listed.name.clone();
    let object = match &listed.object {
        Ok(object) => object,
        Err(why) => {
            let (reason, message) = (UNKNOWN.to_owned(), why.clone());
            return Config { name, reason, message, not_understood: Some(why.clone()), ..Default::default() };
        }
    };
    let status = object.status.clone().unwrap_or_default();
    let (ready, reason, message) = condition(&status.conditions, "Ready");
    Config {
        name,
        ready,
        reason: reason.to_owned(),
        message: with_troubles(&status.conditions, message),
        wave: wave(status.wave.as_ref()),
        updated: status.summary.clone(),
        ready_nodes: status.nodes.ready,
        degraded_nodes: status.nodes.degraded,
        disruption: status.disruption.as_ref().map(|d| format!("{:?}", d.class)).unwrap_or_default(),
        target_revision: status.target_revision.clone(),
        last_known_good: status.last_known_good.clone(),
        not_understood: None,
    }
}

/// What is said of a rollout, behind what is wrong with the RuntimeConfig itself: it may be through without all that was asked for.
fn with_troubles(conditions: &[Condition], message: &str) -> String {
    let wrong = |kind: &str, wrong: &str| conditions.iter().find(|c| c.kind == kind && c.status == wrong);
    let troubles = [wrong("Accepted", "False"), wrong("Conflicted", "True")];
    let mut all: Vec<_> = troubles.into_iter().flatten().map(|c| format!("{}: {}", c.reason, c.message)).collect();
    // What is not accepted says itself that nodes keep what they have.
    if !message.is_empty() && !all.iter().any(|trouble| trouble.ends_with(message)) {
        all.push(message.to_owned());
    }
    all.join("; ")
}

fn policy(listed: &Listed<ImagePolicyObject>) -> Policy {
    let name = listed.name.clone();
    let object = match &listed.object {
        Ok(object) => object,
        Err(why) => {
            let (mode, reason, message) = (UNKNOWN.to_owned(), UNKNOWN.to_owned(), why.clone());
            return Policy { name, mode, reason, message, not_understood: Some(why.clone()), ..Default::default() };
        }
    };
    let status = object.status.clone().unwrap_or_default();
    // Of two that contradict each other that is what to look at.
    let conflicted = condition(&status.conditions, "Conflicted");
    let (ready, reason, message) = if conflicted.0 { conflicted } else { condition(&status.conditions, "Ready") };
    Policy {
        name,
        mode: format!("{:?}", object.spec.mode),
        ready: ready && !conflicted.0,
        reason: reason.to_owned(),
        message: message.to_owned(),
        in_force: status.summary,
        denied: status.denied,
        warned: status.warned,
        not_understood: None,
    }
}

fn tables(status: &Status) -> String {
    let configs = status.runtime_configs.iter().map(|c| {
        let (ready, degraded) = (c.ready_nodes.to_string(), c.degraded_nodes.to_string());
        let target = c.target_revision.clone().unwrap_or_default();
        [
            c.name.clone(),
            c.reason.clone(),
            c.wave.clone(),
            c.updated.clone(),
            ready,
            degraded,
            target,
            c.message.clone(),
        ]
    });
    let configs: Vec<_> = configs.collect();
    let policies = status.image_policies.iter().map(|p| {
        let (denied, warned) = (p.denied.to_string(), p.warned.to_string());
        [p.name.clone(), p.mode.clone(), p.reason.clone(), p.in_force.clone(), denied, warned, p.message.clone()]
    });
    let policies: Vec<_> = policies.collect();
    let mut text = String::new();
    if configs.is_empty() {
        text.push_str("No RuntimeConfig: no node is changed.\n");
    } else {
        let head = ["RUNTIMECONFIG", "STATUS", "WAVE", "UPDATED", "READY", "DEGRADED", "TARGET", "MESSAGE"];
        text.push_str(&table(head, &configs));
    }
    if !policies.is_empty() {
        let head = ["IMAGEPOLICY", "MODE", "STATUS", "IN FORCE", "DENIED", "WARNED", "MESSAGE"];
        text.push('\n');
        text.push_str(&table(head, &policies));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(kind: &str, name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    }

    #[test]
    fn what_was_not_taken_is_told_before_how_far_the_rest_is() {
        let told = |accepted: &str, conflicted: &str| {
            let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": ""});
            let mut whole = object("RuntimeConfig", "c", &json!({}));
            whole["status"] = json!({"conditions": [
                condition("Accepted", accepted, "Invalid", "spec.images: no tag"),
                condition("Conflicted", conflicted, "EqualPriority", "spec.runtime.pidsLimit with d"),
                condition("Ready", "True", "Complete", "1 of 1 nodes"),
            ]});
            config(&Listed::of(serde_json::from_value(whole).unwrap())).message
        };
        assert_eq!(told("True", "False"), "1 of 1 nodes");
        assert_eq!(told("True", "True"), "EqualPriority: spec.runtime.pidsLimit with d; 1 of 1 nodes");
        assert_eq!(told("False", "False"), "Invalid: spec.images: no tag; 1 of 1 nodes");
        let [kind, status, reason] = ["Accepted", "False", "Invalid"].map(str::to_owned);
        let message = "no tag; its nodes keep it".to_owned();
        let not = Condition { kind, status, reason, message, ..Default::default() };
        assert_eq!(with_troubles(&[not], "its nodes keep it"), "Invalid: no tag; its nodes keep it");
    }

    #[test]
    fn what_is_not_understood_has_a_row_of_its_own_beside_the_others() {
        let configs = [("newer", json!({"state": "Suspended"})), ("plain", json!({}))];
        let configs = configs.map(|(name, spec)| serde_json::from_value(object("RuntimeConfig", name, &spec)).unwrap());
        let policies = [("stricter", json!({"mode": "Quarantine"})), ("known", json!({"mode": "Audit"}))];
        let policies = policies.map(|(name, spec)| serde_json::from_value(object("ImagePolicy", name, &spec)).unwrap());
        let status = Status {
            runtime_configs: configs.into_iter().map(|c| config(&Listed::of(c))).collect(),
            image_policies: policies.into_iter().map(|p| policy(&Listed::of(p))).collect(),
        };
        let text = tables(&status);
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        for (name, column, why) in
            [("newer", 1, "`Suspended`"), ("stricter", 1, "`Quarantine`"), ("stricter", 2, "newer version")]
        {
            assert_eq!(row(name).split_whitespace().nth(column), Some(UNKNOWN), "{text}");
            assert!(row(name).contains(why), "{text}");
        }
        assert!(row("plain").contains("Unseen") && row("known").contains("Audit"), "{text}");
        let document = json!(status);
        for (kind, of) in [("runtimeConfigs", "`Suspended`"), ("imagePolicies", "`Quarantine`")] {
            let why = document[kind][0]["notUnderstood"].as_str().unwrap();
            assert!(why.contains(of) && why.contains("newer version"), "{why}");
            assert_eq!(document[kind][1]["notUnderstood"], Value::Null);
        }
    }
}
