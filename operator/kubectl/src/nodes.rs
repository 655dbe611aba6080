//! `kubectl berth nodes`: what each node is to have, what it has, what its agent is at, and why it goes no further.
use crate::cluster::{Cluster, Listed};
use crate::output::{self, Format, table};
use anyhow::Result;
use berth_crds::RuntimeNode;
use serde::Serialize;

/// What is said of the state of a node that is not understood.
const UNKNOWN: &str = "Unknown";

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    state: String,
    phase: String,
    healthy: bool,
    current_revision: Option<String>,
    desired_revision: Option<String>,
    policy_revision: Option<String>,
    runtime_version: Option<String>,
    held: bool,
    message: String,
    /// Of a node whose RuntimeNode this version cannot parse, why: nothing else is known of it.
    not_understood: Option<String>,
}

/// Tells it.
pub async fn run(cluster: &Cluster, format: Option<Format>) -> Result<()> {
    let rows: Vec<Row> = cluster.all::<RuntimeNode>().await?.iter().map(listed).collect();
    if let Some(format) = format {
        return output::document(&rows, format);
    }
    if rows.is_empty() {
        output::text("No nodes: the operator has made no RuntimeNode yet.\n");
        return Ok(());
    }
    let cells: Vec<_> = rows.iter().map(cells).collect();
    output::text(&table(["NAME", "STATE", "PHASE", "HEALTHY", "CURRENT", "DESIRED", "RUNTIME", "MESSAGE"], &cells));
    Ok(())
}

fn cells(row: &Row) -> [String; 8] {
    let shown = |name: &Option<String>| name.clone().unwrap_or_default();
    let healthy = match row.healthy {
        _ if row.not_understood.is_some() => UNKNOWN,
        true => "True",
        false => "False",
    };
    let (current, desired) = (shown(&row.current_revision), shown(&row.desired_revision));
    [
        row.name.clone(),
        row.state.clone(),
        row.phase.clone(),
        healthy.to_owned(),
        current,
        desired,
        shown(&row.runtime_version),
        row.message.clone(),
    ]
}

fn listed(node: &Listed<RuntimeNode>) -> Row {
    let name = node.name.clone();
    match &node.object {
        Ok(node) => row(name, node),
        Err(why) => Row {
            name,
            state: UNKNOWN.to_owned(),
            phase: UNKNOWN.to_owned(),
            message: why.clone(),
            not_understood: Some(why.clone()),
            ..Default::default()
        },
    }
}

fn row(name: String, node: &RuntimeNode) -> Row {
    let (spec, told) = (&node.spec, node.status.is_some());
    let status = node.status.clone().unwrap_or_default();
    // No agent has said anything of it yet.
    let said = |word: String| if told { word } else { UNKNOWN.to_owned() };
    Row {
        name,
        state: said(format!("{:?}", status.state)),
        phase: said(format!("{:?}", status.phase)),
        healthy: status.healthy,
        message: why(node),
        current_revision: status.current_revision,
        desired_revision: spec.desired_revision.clone(),
        policy_revision: status.policy_revision,
        runtime_version: status.runtime_version,
        held: spec.hold,
        not_understood: None,
    }
}

/// What there is to say of a node, the weightiest first.
fn why(node: &RuntimeNode) -> String {
    let (spec, status) = (&node.spec, node.status.clone().unwrap_or_default());
    // One that it has after all failed before that.
    let failed = status.failed.filter(|f| Some(&f.revision) == spec.desired_revision.as_ref());
    let failed = failed.filter(|f| Some(&f.revision) != status.current_revision.as_ref());
    if spec.hold {
        return "held: spec.hold is set".to_owned();
    }
    if let Some(agent) = &spec.agent_problem {
        return format!("no agent since {}: {}", agent.since, agent.message);
    }
    if let Some(failed) = failed {
        return format!("{}: {}", failed.reason, failed.message);
    }
    match (&spec.postponed_until, &spec.postponed_because) {
        (Some(until), Some(because)) => format!("put off until {until}: {because}"),
        // It has failed by that.
        (None, Some(because)) => because.clone(),
        _ => status.message.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weightiest_reason_is_told() {
        let of = |spec: serde_json::Value, status: serde_json::Value| {
            let object = serde_json::json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": "n"},
                "spec": spec, "status": status});
            why(&serde_json::from_value(object).unwrap())
        };
        let failed = serde_json::json!({"failed": {"revision": "r", "reason": "Refused", "message": "no", "at": ""}, "message": "idle"});
        assert_eq!(of(serde_json::json!({"nodeName": "n", "desiredRevision": "r"}), failed.clone()), "Refused: no");
        assert_eq!(of(serde_json::json!({"nodeName": "n", "desiredRevision": "s"}), failed.clone()), "idle");
        let mut again = failed.clone();
        again["currentRevision"] = "r".into();
        assert_eq!(of(serde_json::json!({"nodeName": "n", "desiredRevision": "r"}), again), "idle", "it came through");
        let held = serde_json::json!({"nodeName": "n", "desiredRevision": "r", "hold": true});
        assert_eq!(of(held, failed.clone()), "held: spec.hold is set");
        let agent = serde_json::json!({"pod": "p", "container": "agent", "reason": "ErrImagePull", "message": "pod p: no", "since": "T"});
        let without = serde_json::json!({"nodeName": "n", "desiredRevision": "r", "agentProblem": agent});
        assert_eq!(of(without, failed.clone()), "no agent since T: pod p: no");
        let put_off = serde_json::json!({"nodeName": "n", "postponedUntil": "T", "postponedBecause": "pod a/b"});
        assert_eq!(of(put_off, serde_json::json!({})), "put off until T: pod a/b");
        let failed = serde_json::json!({"nodeName": "n", "postponedBecause": "3 of 3 times"});
        assert_eq!(of(failed, serde_json::json!({"message": "asks"})), "3 of 3 times", "it gets no other turn");
    }

    #[test]
    fn of_a_node_whose_agent_has_said_nothing_nothing_is_known() {
        let object = serde_json::json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": "n"},
            "spec": {"nodeName": "n"}});
        let shown = cells(&listed(&Listed::of(serde_json::from_value(object).unwrap())));
        assert_eq!(shown[..4], ["n", "Unknown", "Unknown", "False"].map(str::to_owned));
    }

    #[test]
    fn a_node_that_is_not_understood_has_a_row_that_says_so() {
        let of = |state: &str| {
            let object = serde_json::json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": "n"},
                "spec": {"nodeName": "n", "hold": true}, "status": {"state": state, "healthy": true}});
            listed(&Listed::of(serde_json::from_value(object).unwrap()))
        };
        let odd = of("Suspended");
        let shown = cells(&odd);
        assert_eq!(shown[..7], ["n", "Unknown", "Unknown", "Unknown", "", "", ""].map(str::to_owned));
        assert!(shown[7].contains("`Suspended`") && shown[7].contains("newer version"), "{shown:?}");
        let document = serde_json::json!(odd);
        assert_eq!((&document["notUnderstood"], &document["healthy"]), (&shown[7].clone().into(), &false.into()));
        let known = of("Managed");
        assert_eq!(cells(&known)[..4], ["n", "Managed", "Idle", "True"].map(str::to_owned));
        assert_eq!(serde_json::json!(known)["notUnderstood"], serde_json::Value::Null);
    }
}
