//! The API server: one watch of one object, single revisions by name, one status.
//!
//! Must not: list nodes, pods or anything else that grows with the cluster; stop at whatever the API server, or a proxy before it, answers.
use crate::clock::Clock;
use crate::cluster::{ClusterSide, Seen};
use crate::credential::{Credential, named};
use crate::node::Trouble;
use crate::observe::Metrics;
use berth_crds::{RuntimeNode, RuntimeNodeStatus, RuntimeRevision, RuntimeRevisionSpec, SecretCredential};
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::client::{ClientBuilder, DynBody};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config as Watch, Error as WatchError, Event, watcher};
use kube::{Api, Client, Config};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tower::util::MapResponseLayer;

/// Who writes.
const MANAGER: &str = "berth-agent";

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a request for one object, or a write of one, may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// Most characters of what is said of an answer.
const MAX_SAID: usize = 300;
/// After this many seconds the API server ends a watch, and it is begun again.
const WATCH_SECONDS: u32 = 60;
/// How long a connection may be silent: longer than a watch lasts. An API server, or a way to it, that is stuck says nothing at all.
const SILENCE: Duration = Duration::from_secs(75);
const _: () = assert!(
    SILENCE.as_secs() > WATCH_SECONDS as u64,
    "a watch of which there is nothing to say is ended by the API server"
);

/// The API server, by the agent's own account.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    /// Namespace and name of the Secret with the registries' credentials.
    secret: Option<(String, String)>,
    /// How long a request may take.
    limit: Duration,
}

impl Kubernetes {
    /// The one at a URL that asks for no account, as `kubectl proxy` is.
    pub fn plain(url: &str, clock: &Clock) -> Result<Self, String> {
        let url = url.parse::<http::Uri>().map_err(|e| format!("{url}: {e}"))?;
        Self::connect(Config::new(url), clock, None)
    }

    /// By that configuration; each answer tells `clock` the API server's time. Tokens are read from their file again while it works.
    /// A connection that is silent for longer than `silence` (75 s) is given up, and with it a watch that hears nothing any more.
    /// Errors: certificates or keys that cannot be used.
    pub fn connect(mut config: Config, clock: &Clock, silence: Option<Duration>) -> Result<Self, String> {
        // Of all that is linked, only this provider is meant; rustls would not guess.
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            tracing::debug!("rustls has its provider already");
        }
        config.connect_timeout = Some(CONNECT_LIMIT);
        config.read_timeout = Some(silence.unwrap_or(SILENCE));
        // Whoever asks knows when to ask again.
        config.default_retry = false;
        config.reset_reader_on_write = true;
        let clock = clock.clone();
        let listen = MapResponseLayer::new(move |response: http::Response<Box<DynBody>>| {
            if let Some(date) = response.headers().get(http::header::DATE).and_then(|value| value.to_str().ok()) {
                clock.hear(date);
            }
            response
        });
        let builder = ClientBuilder::try_from(config).map_err(|e| e.to_string())?;
        Ok(Self { client: builder.with_layer(&listen).build(), secret: None, limit: REQUEST_LIMIT })
    }

    /// The Secret with the registries' credentials; no other one is ever asked for.
    #[must_use]
    pub fn with_secret(self, secret: Option<(String, String)>) -> Self {
        Self { secret, ..self }
    }

    /// With another limit for each request.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Watches the RuntimeNode of that name. An API server that is away changes nothing of what was seen: only an answer does.
    pub fn watch(&self, name: &str, metrics: &Metrics) -> watch::Receiver<Seen> {
        let (tell, seen) = watch::channel(Seen::Nothing);
        let resource = ApiResource::erase::<RuntimeNode>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let wanted = Watch::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let events = watcher(api, wanted).default_backoff();
            pin_mut!(events);
            // Whether a list that began has had the object.
            let mut listed = false;
            while let Some(event) = events.next().await {
                let now = match event {
                    Ok(Event::Init) => {
                        listed = false;
                        continue;
                    }
                    Ok(Event::InitDone) if listed => continue,
                    Ok(Event::InitDone | Event::Delete(_)) => Seen::Gone,
                    Ok(Event::InitApply(object)) => {
                        listed = true;
                        read(object)
                    }
                    Ok(Event::Apply(object)) => read(object),
                    Err(e) => {
                        metrics.watch_failed();
                        tracing::warn!(error = watch_said(&e), "the watch failed and is begun again");
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
        let got = self.in_time(api.get(name)).await;
        got.map(|object| object.spec).map_err(|e| format!("RuntimeRevision {name}: {e}"))
    }

    async fn credentials(&self, wanted: &[SecretCredential]) -> Result<Vec<Credential>, Trouble> {
        let Some((namespace, name)) = &self.secret else {
            let remedy = "spec.credentials.fromSecret needs a Secret: set agent.credentialsSecret of the chart";
            return Err(Trouble::Refused(remedy.to_owned()));
        };
        let (place, api) = (format!("{namespace}/{name}"), Api::<Secret>::namespaced(self.client.clone(), namespace));
        match tokio::time::timeout(self.limit, api.get(name)).await {
            Ok(Ok(secret)) => {
                let data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
                named(wanted, data.collect(), &place).map_err(Trouble::Refused)
            }
            Ok(Err(kube::Error::Api(status))) if [403, 404].contains(&status.code) => {
                Err(Trouble::Refused(format!("Secret {place}: {}", status.message)))
            }
            Ok(Err(e)) => Err(Trouble::Later(format!("Secret {place}: {}", said(&e)))),
            Err(_) => Err(Trouble::Later(format!("Secret {place}: the API server does not answer"))),
        }
    }

    async fn report(&self, node: &str, status: &RuntimeNodeStatus) -> Result<(), String> {
        let api: Api<RuntimeNode> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "status": whole(status) }));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let done = self.in_time(api.patch_status(node, &params, &patch)).await;
        done.map(drop).map_err(|e| format!("status of {node}: {e}"))
    }
}

impl Kubernetes {
    async fn in_time<T>(&self, what: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
        match tokio::time::timeout(self.limit, what).await {
            Ok(done) => done.map_err(|e| said(&e)),
            Err(_) => Err(format!("the API server does not answer within {} ms", self.limit.as_millis())),
        }
    }
}

/// What came instead of an answer, for people: a page that a proxy sent is named, not shown.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status_said(status),
        other => other.to_string().chars().take(MAX_SAID).collect(),
    }
}

fn status_said(status: &kube::core::Status) -> String {
    // So the client names an answer that is no Status of the API server.
    if status.reason == "Failed to parse error data" {
        let what = if status.message.trim_start().starts_with('<') { "a page of HTML" } else { "a text" };
        return format!(
            "{} with {what}: this is not the API server's own answer, a proxy before it may be",
            status.code
        );
    }
    format!("{} {}: {}", status.code, status.reason, status.message).chars().take(MAX_SAID).collect()
}

fn watch_said(error: &WatchError) -> String {
    match error {
        WatchError::InitialListFailed(e) | WatchError::WatchStartFailed(e) | WatchError::WatchFailed(e) => said(e),
        WatchError::WatchError(status) => status_said(status),
        other => other.to_string(),
    }
}

/// A merge patch keeps what it does not name: what is not there is named as null.
fn whole(status: &RuntimeNodeStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let optional = [
        "runtimeVersion",
        "newestVersion",
        "bootID",
        "message",
        "asks",
        "currentRevision",
        "currentSince",
        "loadedRevision",
        "lastKnownGood",
        "policyRevision",
        "failed",
        "drift",
        "prefetch",
    ];
    let inner = [
        ("enforcement", "message"),
        ("enforcement", "decisions"),
        ("asks", "desiredSince"),
        ("capabilities", "cgroupDriver"),
        ("capabilities", "securityModules"),
        ("capabilities", "handlers"),
        ("prefetch", "message"),
    ];
    if let Some(fields) = value.as_object_mut() {
        for name in optional {
            fields.entry(name).or_insert(serde_json::Value::Null);
        }
        for (object, name) in inner {
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
        let prefetch = Some(berth_crds::PrefetchStatus::default());
        let value = whole(&RuntimeNodeStatus { prefetch, ..RuntimeNodeStatus::default() });
        for field in schema["properties"]["prefetch"]["properties"].as_object().unwrap().keys() {
            assert!(value["prefetch"].get(field).is_some(), "prefetch.{field} is not named");
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
