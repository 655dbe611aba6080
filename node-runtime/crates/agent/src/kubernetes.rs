//! The API server: one watch of one object, single revisions by name, one status.
//!
//! Must not: list nodes, pods or anything else that grows with the cluster; stop at whatever the API server, or a proxy before it, answers.
use crate::cluster::{ClusterSide, Seen};
use berth_crds::{RuntimeNode, RuntimeNodeStatus, RuntimeRevision, RuntimeRevisionSpec};
use futures_util::{StreamExt, pin_mut};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

/// Who writes.
const MANAGER: &str = "berth-agent";

/// The API server, by the agent's own account.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    /// By that client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Watches the RuntimeNode of that name. An API server that is away changes nothing of what was seen: only an answer does.
    pub fn watch(&self, name: &str) -> watch::Receiver<Seen> {
        let (tell, seen) = watch::channel(Seen::Nothing);
        let resource = ApiResource::erase::<RuntimeNode>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let name = name.to_owned();
        tokio::spawn(async move {
            let events = watch_object(api, &name).default_backoff();
            pin_mut!(events);
            while let Some(event) = events.next().await {
                let now = match event {
                    Ok(Some(object)) => read(object),
                    Ok(None) => Seen::Gone,
                    Err(e) => {
                        tracing::warn!(error = %e, "the watch failed and is begun again");
                        continue;
                    }
                };
                tell.send_if_modified(|seen| {
                    let news = *seen != now;
                    *seen = now;
                    news
                });
                if tell.is_closed() {
                    return;
                }
            }
        });
        seen
    }
}

/// Another version may have written it: what cannot be read freezes the node, and is told.
fn read(mut object: DynamicObject) -> Seen {
    object.metadata.managed_fields = None;
    let value = serde_json::to_value(&object).unwrap_or_default();
    match RuntimeNode::deserialize(&value) {
        Ok(object) => Seen::There(Box::new(object)),
        Err(e) => Seen::Unreadable(e.to_string()),
    }
}

impl ClusterSide for Kubernetes {
    async fn revision(&self, name: &str) -> Result<RuntimeRevisionSpec, String> {
        let api: Api<RuntimeRevision> = Api::all(self.client.clone());
        api.get(name).await.map(|object| object.spec).map_err(|e| format!("RuntimeRevision {name}: {e}"))
    }

    async fn report(&self, node: &str, status: &RuntimeNodeStatus) -> Result<(), String> {
        let api: Api<RuntimeNode> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "status": whole(status) }));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch_status(node, &params, &patch).await.map(drop).map_err(|e| format!("status of {node}: {e}"))
    }
}

/// A merge patch keeps what it does not name: what is not there is named as null.
fn whole(status: &RuntimeNodeStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let optional = [
        "runtimeVersion",
        "bootID",
        "message",
        "currentRevision",
        "currentSince",
        "loadedRevision",
        "lastKnownGood",
        "policyRevision",
        "failed",
        "drift",
    ];
    if let Some(fields) = value.as_object_mut() {
        for name in optional {
            fields.entry(name).or_insert(serde_json::Value::Null);
        }
        for (object, name) in [("enforcement", "message"), ("enforcement", "decisions"), ("capabilities", "handlers")] {
            if let Some(inner) = fields.get_mut(object).and_then(|v| v.as_object_mut()) {
                inner.entry(name).or_insert(serde_json::Value::Null);
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::RuntimeNodeSpec;

    /// A field that is not named would keep its former value: a failure that is over, a message of yesterday.
    #[test]
    fn every_field_that_may_be_missing_is_named() {
        let value = whole(&RuntimeNodeStatus::default());
        let definition = berth_crds::crd::definitions().pop().unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        for field in schema["properties"].as_object().unwrap().keys() {
            let kept = ["observedGeneration", "phaseSince", "conditions"].contains(&field.as_str());
            assert!(kept || value.get(field).is_some(), "{field} is not named");
        }
    }

    #[test]
    fn what_this_version_cannot_read_is_told() {
        let object = |spec| {
            let json = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": "n"}, "spec": spec});
            read(serde_json::from_value(json).unwrap())
        };
        let spec = RuntimeNodeSpec { node_name: "n".to_owned(), ..RuntimeNodeSpec::default() };
        assert!(matches!(object(serde_json::to_value(spec).unwrap()), Seen::There(_)));
        assert!(matches!(object(json!({"nodeName": "n", "grant": "yes"})), Seen::Unreadable(_)));
    }
}
