//! Changes of the cluster. Every one is made under the lease only, says who made it, and names the version of the object that it was decided
//! for: one decided on an old view fails, and is decided again.
//!
//! A request ends within its limit and before the lease does. Nothing is tried again here: what fails fails the step, and the pass is begun again later.
//! After a request without an answer the rest of the pass asks for nothing more: an API server that is silent would hold it up for each object.
use super::client::REQUEST_LIMIT;
use super::lease::Leadership;
use crate::observe::Metrics;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most pods of one answer.
const PAGE: u32 = 500;

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
    limit: Duration,
    silent: Arc<AtomicBool>,
}

/// Why a request came to nothing.
enum Failure {
    /// The API server's answer, or none that could be read.
    Answered(kube::Error),
    /// It was not made, or not answered.
    Unasked(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answered(e) => write!(f, "{e}"),
            Self::Unasked(why) => f.write_str(why),
        }
    }
}

/// A kind without namespaces.
pub trait Kind: Resource<DynamicType = (), Scope: Sized> + Clone + Debug + DeserializeOwned + Serialize {}
impl<T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize> Kind for T {}

impl Writes {
    /// Through that client, under that lease.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics) -> Self {
        Self { client, leadership, metrics, limit: REQUEST_LIMIT, silent: Arc::default() }
    }

    /// With another limit for each request.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// A pass begins: the API server is asked again.
    pub fn begin(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }

    /// Makes an object; one of that name is as good.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        self.told::<K, _>("create", self.ask(api.create(&params, object)).await)
    }

    /// Changes fields of an object, if it is still of that version.
    pub async fn patch<K: Kind>(&self, object: &K, fields: Value) -> Result<Done, String> {
        let (name, patch) = versioned(object, fields);
        let api: Api<K> = Api::all(self.client.clone());
        self.told::<K, _>("patch", self.ask(api.patch(&name, &params(), &Patch::Merge(patch))).await)
    }

    /// Changes an object's status, if it is still of that version.
    pub async fn patch_status<K: Kind>(&self, object: &K, status: Value) -> Result<Done, String> {
        let meta = object.meta();
        let (name, version) = (meta.name.clone().unwrap_or_default(), json!(meta.resource_version));
        self.patch_status_at::<K>(&name, version, status).await
    }

    /// Changes the status of an object that could not be parsed, if it is still of that version.
    pub async fn patch_status_at<K: Kind>(&self, name: &str, version: Value, status: Value) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
        self.told::<K, _>("patch status", self.ask(api.patch_status(name, &params(), &patch)).await)
    }

    /// Removes an object, if it is that one.
    pub async fn delete<K: Kind>(&self, object: &K) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        let name = object.meta().name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..Default::default() };
        self.told::<K, _>("delete", self.ask(api.delete(&name, &params)).await)
    }

    /// Goes through the pods of a node, or of a namespace, page by page: of each only what is taken from it is kept.
    pub async fn pods<T>(
        &self,
        namespace: Option<&str>,
        node: Option<&str>,
        mut take: impl FnMut(Pod) -> T,
    ) -> Result<Vec<T>, String> {
        let api: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector = node.map(|node| format!("spec.nodeName={node}"));
        let mut taken = Vec::new();
        loop {
            let page = self.ask(api.list(&params)).await.map_err(|e| format!("list pods: {e}"))?;
            taken.extend(page.items.into_iter().map(&mut take));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(taken),
            }
        }
    }

    /// Evicts a pod, as its disruption budget allows. `Stale`: not now, or it is gone; another one of the same name is not touched.
    pub async fn evict(&self, pod: &Pod) -> Result<Done, String> {
        let (name, namespace) =
            (pod.metadata.name.clone().unwrap_or_default(), pod.metadata.namespace.clone().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        // Written out: the client's own type names the options as the API does not, which then does not see them.
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": pod.metadata.uid}}});
        let params = PostParams::default();
        let request = api.create_subresource::<_, Value>("eviction", &name, &params, &eviction);
        match self.ask(request).await {
            // The budget's own answer.
            Err(Failure::Answered(kube::Error::Api(status))) if status.code == 429 => {
                self.metrics.written("Pod", "evict", "429");
                Ok(Done::Stale)
            }
            other => self.told::<Pod, _>("evict", other),
        }
    }

    /// One request, ended by its limit or the lease's.
    async fn ask<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        let unasked = |why: &str| Failure::Unasked(why.to_owned());
        let Some(rest) = self.leadership.rest() else {
            return Err(unasked("the lease is lost: nothing is written any more"));
        };
        if self.silent.load(Ordering::Relaxed) {
            return Err(unasked("not asked: the API server did not answer another request of this pass"));
        }
        let limit = self.limit.min(rest);
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(Failure::Answered),
            Err(_) => {
                self.silent.store(true, Ordering::Relaxed);
                Err(Failure::Unasked(format!("the API server did not answer within {} ms", limit.as_millis())))
            }
        }
    }

    fn told<K: Kind, T>(&self, verb: &str, result: Result<T, Failure>) -> Result<Done, String> {
        let kind = K::kind(&()).into_owned();
        let code = match &result {
            Ok(_) => "ok".to_owned(),
            Err(Failure::Answered(kube::Error::Api(status))) => status.code.to_string(),
            Err(_) => "none".to_owned(),
        };
        self.metrics.written(&kind, verb, &code);
        match result {
            Ok(_) => Ok(Done::Yes),
            // Of a create: it is there.
            Err(Failure::Answered(kube::Error::Api(status))) if status.code == 409 && verb == "create" => Ok(Done::Yes),
            Err(Failure::Answered(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(Done::Stale),
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
