//! Changes of the cluster. Every one is made under the lease only, says who made it, and names the version of the object that it was decided
//! for: one decided on an old view fails, and is decided again.
//!
//! 429 and 5xx are tried again by the client itself; whatever fails after that fails the step, and the pass is begun again later.
use super::lease::Leadership;
use crate::observe::Metrics;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Who writes.
pub const MANAGER: &str = "berth-operator";

/// How a change ended that may not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It happened.
    Yes,
    /// The object was changed or removed meanwhile; it must be looked at again.
    Stale,
}

/// Makes changes.
#[derive(Clone)]
pub struct Writes {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
}

/// A kind without namespaces.
pub trait Kind: Resource<DynamicType = (), Scope: Sized> + Clone + Debug + DeserializeOwned + Serialize {}
impl<T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize> Kind for T {}

impl Writes {
    /// Through that client, under that lease.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics) -> Self {
        Self { client, leadership, metrics }
    }

    /// Makes an object; one of that name is as good.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        self.leading()?;
        self.told::<K, _>(
            "create",
            api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }, object).await,
        )
    }

    /// Changes fields of an object, if it is still of that version.
    pub async fn patch<K: Kind>(&self, object: &K, fields: Value) -> Result<Done, String> {
        let (name, patch) = versioned(object, fields);
        let api: Api<K> = Api::all(self.client.clone());
        self.leading()?;
        self.told::<K, _>("patch", api.patch(&name, &params(), &Patch::Merge(patch)).await)
    }

    /// Changes an object's status.
    pub async fn patch_status<K: Kind>(&self, name: &str, status: Value) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        self.leading()?;
        let patch = Patch::Merge(json!({ "status": status }));
        self.told::<K, _>("patch status", api.patch_status(name, &params(), &patch).await)
    }

    /// Removes an object, if it is that one.
    pub async fn delete<K: Kind>(&self, object: &K) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        let name = object.meta().name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        self.leading()?;
        let params = DeleteParams { preconditions: Some(preconditions), ..Default::default() };
        self.told::<K, _>("delete", api.delete(&name, &params).await)
    }

    /// The pods of a node, or of a namespace.
    pub async fn pods(&self, namespace: Option<&str>, node: Option<&str>) -> Result<Vec<Pod>, String> {
        let api: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let params = match node {
            Some(node) => ListParams::default().fields(&format!("spec.nodeName={node}")),
            None => ListParams::default(),
        };
        api.list(&params).await.map(|list| list.items).map_err(|e| format!("list pods: {e}"))
    }

    /// Evicts a pod, as its disruption budget allows. `Stale`: not now, or it is gone.
    pub async fn evict(&self, pod: &Pod) -> Result<Done, String> {
        let (name, namespace) =
            (pod.metadata.name.clone().unwrap_or_default(), pod.metadata.namespace.clone().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        self.leading()?;
        match api.evict(&name, &EvictParams::default()).await {
            // The budget's own answer.
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(Done::Stale),
            other => self.told::<Pod, _>("evict", other),
        }
    }

    fn leading(&self) -> Result<(), String> {
        if self.leadership.held() { Ok(()) } else { Err("the lease is lost: nothing is written any more".to_owned()) }
    }

    fn told<K: Kind, T>(&self, verb: &str, result: kube::Result<T>) -> Result<Done, String> {
        let kind = K::kind(&()).into_owned();
        let code = match &result {
            Ok(_) => "ok".to_owned(),
            Err(kube::Error::Api(status)) => status.code.to_string(),
            Err(_) => "none".to_owned(),
        };
        self.metrics.written(&kind, verb, &code);
        match result {
            Ok(_) => Ok(Done::Yes),
            // Of a create: it is there.
            Err(kube::Error::Api(status)) if status.code == 409 && verb == "create" => Ok(Done::Yes),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Done::Stale),
            Err(e) => Err(format!("{verb} {kind}: {e}")),
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }
}

fn versioned<K: Kind>(object: &K, mut fields: Value) -> (String, Value) {
    let meta = object.meta();
    fields["metadata"]["resourceVersion"] = json!(meta.resource_version);
    (meta.name.clone().unwrap_or_default(), fields)
}
