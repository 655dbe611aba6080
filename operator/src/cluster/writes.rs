//! Changes of the cluster. Every one is made under the lease only, says who made it, and names the version of the object that it was decided
//! for: one decided on an old view fails, and is decided again.
//!
//! A request ends within its limit and before the lease does. Nothing is tried again here: what fails fails the step, and the pass is begun again later.
//! After a request without an answer the rest of the pass asks for nothing more: an API server that is silent would hold it up for each object.
//! What is refused of one object is another thing than an API server that fails ([`Writes::ails`]): it is put off by itself.
use super::client::{self, PAGE, REQUEST_LIMIT};
use super::lease::Leadership;
use super::refusals::Refusals;
use crate::observe::Metrics;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// How an eviction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evicted {
    /// The pod goes.
    Yes,
    /// It is gone, or another one has its name.
    Gone,
    /// It stays: what the API server said, with the disruption budget if it named one.
    Refused(String),
}

/// Makes changes.
#[derive(Clone)]
pub struct Writes {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
    limit: Duration,
    silent: Arc<AtomicBool>,
    ails: Arc<AtomicBool>,
    refusals: Arc<Mutex<Refusals>>,
}

/// Why a request came to nothing.
enum Failure {
    /// The API server's answer, or none that could be read.
    Answered(kube::Error),
    /// It was not made, or not answered.
    Unasked(String),
}

impl Failure {
    /// Whether it says no to one request only.
    fn is_of_one_object(&self) -> bool {
        matches!(self, Self::Answered(kube::Error::Api(status)) if matches!(status.code, 400..=499) && !matches!(status.code, 401 | 429))
    }
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
        let (silent, ails, refusals) = Default::default();
        Self { client, leadership, metrics, limit: REQUEST_LIMIT, silent, ails, refusals }
    }

    /// With another limit for each request.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// A pass begins: the API server is asked again.
    pub fn begin(&self) {
        self.silent.store(false, Ordering::Relaxed);
        self.ails.store(false, Ordering::Relaxed);
        self.refusals().sweep(Instant::now());
    }

    /// Whether the API server itself failed in this pass: no connection or answer, 429, 5xx, a token that it does not take, or what no API server says.
    pub fn ails(&self) -> bool {
        self.ails.load(Ordering::Relaxed)
    }

    /// When the next change that was refused is to be asked for again.
    pub fn next_of_refused(&self) -> Option<Duration> {
        self.refusals().next(Instant::now())
    }

    /// Why a pod was not evicted when it was last asked for.
    pub fn refusal(&self, pod: &Pod) -> Option<String> {
        self.refusals().why(&eviction_of(pod)).map(str::to_owned)
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_off(&self, key: &str) -> Option<String> {
        self.refusals().holds(key, Instant::now()).map(str::to_owned)
    }

    /// Makes an object; one of that name is as good.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<Done, String> {
        self.creating(object).await.map(|(done, _)| done)
    }

    /// Makes an object, and returns it as it was made; `None`: one of that name is there.
    pub async fn make<K: Kind>(&self, object: &K) -> Result<Option<K>, String> {
        self.creating(object).await.map(|(_, made)| made)
    }

    async fn creating<K: Kind>(&self, object: &K) -> Result<(Done, Option<K>), String> {
        let api: Api<K> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        let key = of::<K>("create", object.meta().name.as_deref(), &Value::Null);
        let mut made = None;
        let request = async { api.create(&params, object).await.map(|object| made = Some(object)) };
        let done = self.change::<K, _>("create", &key, request).await?;
        Ok((done, made))
    }

    /// Changes fields of an object, if it is still of that version.
    pub async fn patch<K: Kind>(&self, object: &K, fields: Value) -> Result<Done, String> {
        let key = of::<K>("patch", object.meta().name.as_deref(), &fields);
        let (name, patch) = versioned(object, fields);
        let api: Api<K> = Api::all(self.client.clone());
        self.change::<K, _>("patch", &key, api.patch(&name, &params(), &Patch::Merge(patch))).await
    }

    /// Takes an annotation away, if it still has that value; whatever else of the object was changed meanwhile does not count.
    pub async fn unannotate<K: Kind>(&self, name: &str, annotation: &str, value: &str) -> Result<Done, String> {
        // A JSON Pointer (RFC 6901).
        let path = format!("/metadata/annotations/{}", annotation.replace('~', "~0").replace('/', "~1"));
        let steps = json!([{"op": "test", "path": path, "value": value}, {"op": "remove", "path": path}]);
        let patch = serde_json::from_value(steps).map_err(|e| e.to_string())?;
        let api: Api<K> = Api::all(self.client.clone());
        let key = format!("{} {annotation}", of::<K>("patch", Some(name), &Value::Null));
        if let Some(why) = self.put_off(&key) {
            return Err(format!("{why} (not asked for again yet)"));
        }
        let answer = self.ask(api.patch(name, &params(), &Patch::Json::<()>(patch))).await;
        match &answer {
            // The test failed (applyJSPatch in staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go of Kubernetes).
            Err(Failure::Answered(kube::Error::Api(status))) if status.code == 422 => {
                self.metrics.written(&K::kind(&()), "patch", "422");
                Ok(Done::Stale)
            }
            _ => self.told::<K, _>("patch", &key, answer),
        }
    }

    /// Changes an object's status, if it is still of that version.
    pub async fn patch_status<K: Kind>(&self, object: &K, status: Value) -> Result<Done, String> {
        let meta = object.meta();
        let (name, version) = (meta.name.clone().unwrap_or_default(), json!(meta.resource_version));
        self.patch_status_at::<K>(&name, version, status).await
    }

    /// Changes the status of an object that could not be parsed, if it is still of that version.
    pub async fn patch_status_at<K: Kind>(&self, name: &str, version: Value, status: Value) -> Result<Done, String> {
        // The answer is that object, which cannot be parsed either.
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()));
        let key = of::<K>("patch status", Some(name), &json!({ "status": status }));
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
        self.change::<K, _>("patch status", &key, api.patch_status(name, &params(), &patch)).await
    }

    /// Removes an object, if it is that one.
    pub async fn delete<K: Kind>(&self, object: &K) -> Result<Done, String> {
        let api: Api<K> = Api::all(self.client.clone());
        let name = object.meta().name.clone().unwrap_or_default();
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..Default::default() };
        let key = of::<K>("delete", Some(&name), &Value::Null);
        self.change::<K, _>("delete", &key, api.delete(&name, &params)).await
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
            let page = self.ask(api.list(&params)).await.map_err(|e| {
                self.note(&e);
                format!("list pods: {e}")
            })?;
            taken.extend(page.items.into_iter().map(&mut take));
            if !client::goes_on(&mut params, page.metadata) {
                return Ok(taken);
            }
        }
    }

    /// Evicts a pod, as its disruption budgets allow; another one of the same name is not touched. What a budget refuses is asked for each time,
    /// what anything else refuses (a webhook; two budgets for one pod) ever more seldom.
    pub async fn evict(&self, pod: &Pod) -> Result<Evicted, String> {
        let (name, namespace) =
            (pod.metadata.name.clone().unwrap_or_default(), pod.metadata.namespace.clone().unwrap_or_default());
        let key = eviction_of(pod);
        if let Some(why) = self.put_off(&key) {
            return Ok(Evicted::Refused(why));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        // Written out: the client's own type names the options as the API does not, which then does not see them.
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": pod.metadata.uid}}});
        let params = PostParams::default();
        let answer = self.ask(api.create_subresource::<_, Value>("eviction", &name, &params, &eviction)).await;
        let Some(status) = refused(&answer) else {
            return self.told::<Pod, _>("evict", &key, answer).map(|done| match done {
                Done::Yes => Evicted::Yes,
                Done::Stale => Evicted::Gone,
            });
        };
        self.metrics.written("Pod", "evict", &status.code.to_string());
        let (why, now) = (words(&status), Instant::now());
        match status.code {
            429 => self.refusals().not_now(&key, &why, now),
            _ => self.refusals().put_off(&key, &why, now),
        }
        Ok(Evicted::Refused(why))
    }

    /// One change, unless it was refused a short while ago.
    async fn change<K: Kind, T>(
        &self,
        verb: &str,
        key: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Done, String> {
        match self.put_off(key) {
            Some(why) => Err(format!("{why} (not asked for again yet)")),
            None => self.told::<K, _>(verb, key, self.ask(request).await),
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

    /// Whether a failure is one object's, or all have it.
    fn note(&self, failure: &Failure) -> bool {
        let own = failure.is_of_one_object();
        if !own {
            self.ails.store(true, Ordering::Relaxed);
        }
        own
    }

    fn told<K: Kind, T>(&self, verb: &str, key: &str, result: Result<T, Failure>) -> Result<Done, String> {
        let kind = K::kind(&()).into_owned();
        let code = match &result {
            Ok(_) => "ok".to_owned(),
            Err(Failure::Answered(kube::Error::Api(status))) => status.code.to_string(),
            Err(_) => "none".to_owned(),
        };
        self.metrics.written(&kind, verb, &code);
        let failure = match result {
            Ok(_) => {
                self.refusals().over(key);
                return Ok(Done::Yes);
            }
            Err(failure) => failure,
        };
        if let Failure::Answered(kube::Error::Api(status)) = &failure
            && matches!(status.code, 404 | 409)
        {
            self.refusals().over(key);
            // Of a create: it is there.
            return Ok(if status.code == 409 && verb == "create" { Done::Yes } else { Done::Stale });
        }
        let why = format!("{verb} {kind}: {failure}");
        if self.note(&failure) {
            self.refusals().put_off(key, &why, Instant::now());
        }
        Err(why)
    }
}

/// What a refused change is remembered by: not its values, of which some are times.
fn of<K: Kind>(verb: &str, name: Option<&str>, fields: &Value) -> String {
    let mut key = format!("{verb} {} {}", K::kind(&()), name.unwrap_or_default());
    for (part, fields) in fields.as_object().into_iter().flatten() {
        for field in fields.as_object().into_iter().flat_map(|fields| fields.keys()) {
            key.push_str(&format!(" {part}.{field}"));
        }
    }
    key
}

fn eviction_of(pod: &Pod) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("evict Pod {}/{} {}", text(&meta.namespace), text(&meta.name), text(&meta.uid))
}

/// What kept a pod from being evicted, if that is about this pod. With two disruption budgets for it the answer is a success whose body is a failure
/// with code 500 (pkg/registry/core/pod/storage/eviction.go of Kubernetes 1.37); as an answer 500 means the same
/// (<https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>).
fn refused(answer: &Result<Value, Failure>) -> Option<Status> {
    match answer {
        Ok(body) if body["status"] == "Failure" => Some(Status::deserialize(body).unwrap_or_default()),
        Err(Failure::Answered(kube::Error::Api(status)))
            if matches!(status.code, 400..=500) && !matches!(status.code, 401 | 404 | 409) =>
        {
            Some(status.as_ref().clone())
        }
        _ => None,
    }
}

/// A refusal, with the causes that name budgets.
fn words(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let all = std::iter::once(status.message.as_str()).chain(causes);
    all.map(|text| text.trim_end_matches('.')).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }
}

fn versioned<K: Kind>(object: &K, mut fields: Value) -> (String, Value) {
    let meta = object.meta();
    fields["metadata"]["resourceVersion"] = json!(meta.resource_version);
    (meta.name.clone().unwrap_or_default(), fields)
}
