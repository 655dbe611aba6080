//! Status: conditions, handlers and features. Only what is built is claimed.
use crate::encode::info;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::StatusRequest) -> Result<wire::StatusResponse> {
    let status = engine.status().await;
    let conditions = status.conditions.into_iter().map(|c| wire::RuntimeCondition {
        r#type: c.kind.to_owned(),
        status: c.ok,
        reason: c.reason.to_owned(),
        message: c.message,
    });
    let facts = engine.facts();
    let features = wire::RuntimeHandlerFeatures {
        recursive_read_only_mounts: facts.recursive_readonly(),
        user_namespaces: facts.user_namespaces,
    };
    let handlers = engine.handlers().into_iter().map(|name| wire::RuntimeHandler { name, features: Some(features) });
    let standing = engine.standing();
    let verbose = || {
        let pending: Vec<_> = standing.pending().into_iter().map(|change| change.field).collect();
        serde_json::json!({
            "config": { "stateDir": engine.state_dir() },
            "documents": engine.settings().documents,
            "refusedDocuments": standing.refused(),
            "pendingRestart": pending,
            "settingsProblems": standing.problems(),
            "cni": cni(engine),
        })
    };
    Ok(wire::StatusResponse {
        status: Some(wire::RuntimeStatus { conditions: conditions.collect() }),
        info: if request.verbose { config_info(&verbose()) } else { Default::default() },
        runtime_handlers: handlers.collect(),
        features: Some(wire::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
            mount_options: true,
        }),
    })
}

/// What the CNI client knows, as `crictl info` shows it; null where the built-in network connects pods.
fn cni(engine: &Engine) -> serde_json::Value {
    let Some(report) = engine.cni_report() else { return serde_json::Value::Null };
    let pending = report
        .pending
        .iter()
        .map(|p| serde_json::json!({ "pod": p.pod.as_str(), "failures": p.failures, "problem": p.problem }));
    let broken =
        report.broken.iter().map(|(pod, problem)| serde_json::json!({ "pod": pod.as_str(), "problem": problem }));
    serde_json::json!({
        "network": report.network,
        "file": report.file,
        "problem": report.problem,
        "refused": report.refused,
        "unused": report.unused,
        "pendingDeletes": pending.collect::<Vec<_>>(),
        "broken": broken.collect::<Vec<_>>(),
    })
}

/// critest reads `config` as a document of its own.
fn config_info(value: &serde_json::Value) -> std::collections::HashMap<String, String> {
    let mut map = info(value);
    map.insert("config".to_owned(), value["config"].to_string());
    map
}
