//! Watched objects, by name. An object that this version cannot parse is kept as such: it freezes what it is about, and nothing else.
//!
//! Must not: panic or stop at whatever the API server, or a proxy before it, answers: a watch that fails is begun again, with growing pauses.
use super::world::{Broken, World};
use crate::observe::Metrics;
use berth_crds::{ImagePolicyObject, RuntimeConfigObject, RuntimeNode, RuntimeRevision};
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The objects of one kind.
#[derive(Debug)]
pub struct Store<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<String, Result<Arc<T>, Broken>>,
    /// What a list that is not complete yet has brought.
    coming: BTreeMap<String, Result<Arc<T>, Broken>>,
    synced: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { objects: BTreeMap::new(), coming: BTreeMap::new(), synced: false }) }
    }
}

impl<T: DeserializeOwned> Store<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a watch says.
    pub fn apply(&self, event: Event<DynamicObject>) {
        let mut inner = self.lock();
        match event {
            Event::Init => inner.coming.clear(),
            Event::InitApply(object) => drop(inner.coming.insert(object.name_any(), parse(object))),
            Event::InitDone => {
                inner.objects = std::mem::take(&mut inner.coming);
                inner.synced = true;
            }
            Event::Apply(object) => drop(inner.objects.insert(object.name_any(), parse(object))),
            Event::Delete(object) => drop(inner.objects.remove(&object.name_any())),
        }
    }

    /// Whether a first list is complete.
    pub fn synced(&self) -> bool {
        self.lock().synced
    }

    /// Those that could be parsed, and those that could not.
    pub fn split(&self) -> (BTreeMap<String, Arc<T>>, Vec<Broken>) {
        let inner = self.lock();
        let (mut good, mut broken) = (BTreeMap::new(), Vec::new());
        for (name, object) in &inner.objects {
            match object {
                Ok(object) => drop(good.insert(name.clone(), Arc::clone(object))),
                Err(e) => broken.push(e.clone()),
            }
        }
        (good, broken)
    }
}

fn parse<T: DeserializeOwned>(mut object: DynamicObject) -> Result<Arc<T>, Broken> {
    object.metadata.managed_fields = None;
    let is = |kind: &str| object.types.as_ref().is_some_and(|t| t.kind == kind && t.api_version == "v1");
    if is("Node") {
        object = what_counts(object);
    } else if is("Pod") {
        object = what_counts_of_a_pod(object);
    }
    let value = serde_json::to_value(&object).unwrap_or_default();
    T::deserialize(&value).map(Arc::new).map_err(|e| Broken {
        name: object.name_any(),
        error: e.to_string(),
        object: value,
    })
}

/// Of a Node: labels, our annotation, whether it is schedulable and Ready. The rest, its images above all, is many times that.
fn what_counts(mut node: DynamicObject) -> DynamicObject {
    if let Some(annotations) = &mut node.metadata.annotations {
        annotations.retain(|name, _| name.starts_with("berth.dev/"));
    }
    let conditions = node.data["status"]["conditions"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let ready: Vec<_> = conditions.into_iter().filter(|c| c["type"] == "Ready").collect();
    let unschedulable = node.data["spec"]["unschedulable"].take();
    node.data = json!({"spec": {"unschedulable": unschedulable}, "status": {"conditions": ready}});
    node
}

/// Of an agent's pod: where it is or is to be, and how it and its containers fare.
fn what_counts_of_a_pod(mut pod: DynamicObject) -> DynamicObject {
    (pod.metadata.annotations, pod.metadata.labels) = (None, None);
    let mut status = pod.data["status"].take();
    let node = node_of(&pod.data["spec"]);
    let kept = ["phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses"];
    let status = kept.map(|field| (field.to_owned(), status[field].take()));
    let status: serde_json::Map<_, _> = status.into_iter().filter(|(_, value)| !value.is_null()).collect();
    pod.data = json!({"spec": {"nodeName": node, "containers": []}, "status": status});
    pod
}

/// The node of a DaemonSet's pod. Before it is scheduled that is the only one that its affinity names (`ReplaceDaemonSetPodNodeNameNodeAffinity` in
/// pkg/controller/daemon/util of Kubernetes).
fn node_of(spec: &serde_json::Value) -> Option<String> {
    if let Some(node) = spec["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Some(node.to_owned());
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let fields = required["nodeSelectorTerms"].as_array()?.iter().filter_map(|term| term["matchFields"].as_array());
    let mut names = fields.flatten().filter(|field| field["key"] == "metadata.name" && field["operator"] == "In");
    match names.next()?["values"].as_array()?.as_slice() {
        [node] => node.as_str().map(str::to_owned),
        _ => None,
    }
}

/// Of those pods the one that counts for each node.
fn by_node(pods: BTreeMap<String, Arc<Pod>>) -> BTreeMap<String, Arc<Pod>> {
    let mut found: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    for pod in pods.into_values().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
        let newer = |other: &Arc<Pod>| pod.metadata.creation_timestamp >= other.metadata.creation_timestamp;
        if found.get(&node).is_none_or(newer) {
            found.insert(node, pod);
        }
    }
    found
}

/// How long a watch may fail before what it knows counts as old.
const OLD_AFTER: Duration = Duration::from_secs(60);
/// A watch that has not failed for so long works: longer than the longest pause between two attempts, and an attempt's own limit.
const WORKS_AFTER: Duration = Duration::from_secs(60);

/// How the watches fare.
#[derive(Debug, Default)]
struct Troubles {
    /// By kind: when it began to fail, and when it last failed.
    failing: BTreeMap<String, (Instant, Instant)>,
    /// A watch has ended, which none ever does by itself.
    ended: bool,
}

impl Troubles {
    fn failed(&mut self, kind: &str, now: Instant) {
        let (since, last) = self.failing.entry(kind.to_owned()).or_insert((now, now));
        if now.duration_since(*last) > WORKS_AFTER {
            *since = now;
        }
        *last = now;
    }

    fn fresh(&self, now: Instant) -> bool {
        let old = |(since, last): &(Instant, Instant)| {
            now.duration_since(*since) > OLD_AFTER && now.duration_since(*last) <= WORKS_AFTER
        };
        !self.ended && !self.failing.values().any(old)
    }
}

/// All that is watched.
#[derive(Debug, Default)]
pub struct Stores {
    troubles: Mutex<Troubles>,
    nodes: Store<Node>,
    runtime_nodes: Store<RuntimeNode>,
    configs: Store<RuntimeConfigObject>,
    policies: Store<ImagePolicyObject>,
    revisions: Store<RuntimeRevision>,
    agents: Store<Pod>,
    /// Something has changed.
    pub changed: Notify,
}

impl Stores {
    /// Begins to watch. Pods are watched in that namespace alone, those that the selector of labels names: the agents'.
    pub fn watch(client: &Client, metrics: &Metrics, namespace: &str, agents: &str) -> Arc<Self> {
        let stores = Arc::new(Self::default());
        macro_rules! follow {
            ($field:ident: $kind:ty, $api:expr, $config:expr) => {
                let watch = (<$kind as Resource>::kind(&()).into_owned(), $config);
                let following = tokio::spawn(follow($api, watch, Arc::clone(&stores), |s| &s.$field, metrics.clone()));
                tokio::spawn(ended(following, Arc::clone(&stores)));
            };
            ($($field:ident: $kind:ty),*) => { $(
                let api = Api::all_with(client.clone(), &ApiResource::erase::<$kind>(&()));
                follow!($field: $kind, api, watcher::Config::default());
            )* };
        }
        follow!(nodes: Node, runtime_nodes: RuntimeNode, configs: RuntimeConfigObject, policies: ImagePolicyObject, revisions: RuntimeRevision);
        let pods = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Pod>(&()));
        follow!(agents: Pod, pods, watcher::Config::default().labels(agents));
        stores
    }

    /// Whether all kinds have been listed once.
    pub fn synced(&self) -> bool {
        self.nodes.synced()
            && self.runtime_nodes.synced()
            && self.configs.synced()
            && self.policies.synced()
            && self.revisions.synced()
            && self.agents.synced()
    }

    /// Whether what is known is what there is, as far as anybody can know.
    pub fn fresh(&self) -> bool {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).fresh(Instant::now())
    }

    /// Whether all watches go on: one that has ended never begins again.
    pub fn alive(&self) -> bool {
        !self.troubles.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// What is known now.
    pub fn world(&self) -> World {
        let (nodes, broken_nodes) = self.nodes.split();
        let (runtime_nodes, broken_runtime_nodes) = self.runtime_nodes.split();
        let (configs, broken_configs) = self.configs.split();
        let (policies, broken_policies) = self.policies.split();
        let (revisions, broken_revisions) = self.revisions.split();
        let agents = by_node(self.agents.split().0);
        let by_name = |all: Vec<Broken>| all.into_iter().map(|broken| (broken.name.clone(), broken)).collect();
        World {
            nodes,
            runtime_nodes,
            configs,
            policies,
            revisions,
            agents,
            broken_nodes: by_name(broken_nodes),
            broken_runtime_nodes: by_name(broken_runtime_nodes),
            broken_revisions: by_name(broken_revisions),
            broken_configs,
            broken_policies,
        }
    }
}

async fn ended(following: tokio::task::JoinHandle<()>, stores: Arc<Stores>) {
    let end = following.await;
    tracing::error!(?end, "a watch has ended");
    stores.troubles.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
}

async fn follow<T: DeserializeOwned + Send + Sync + 'static>(
    api: Api<DynamicObject>,
    (kind, config): (String, watcher::Config),
    stores: Arc<Stores>,
    store: fn(&Stores) -> &Store<T>,
    metrics: Metrics,
) {
    let events = watcher(api, config).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                stores.troubles.lock().unwrap_or_else(PoisonError::into_inner).failing.remove(&kind);
                store(&stores).apply(event);
                stores.changed.notify_one();
            }
            Err(e) => {
                metrics.watch_failed(&kind);
                stores.troubles.lock().unwrap_or_else(PoisonError::into_inner).failed(&kind, Instant::now());
                tracing::warn!(kind, error = %e, "a watch failed and is begun again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, spec: serde_json::Value) -> DynamicObject {
        let json = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": name}, "spec": spec});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_object_that_cannot_be_parsed_is_alone_with_that() {
        let store = Store::<RuntimeConfigObject>::default();
        store.apply(Event::Init);
        store.apply(Event::InitApply(object("good", json!({}))));
        store.apply(Event::InitApply(object("newer", json!({"turbo": true}))));
        assert!(!store.synced());
        store.apply(Event::InitDone);
        let (good, broken) = store.split();
        assert!(store.synced() && good.contains_key("good") && good.len() == 1);
        assert!(broken[0].name == "newer" && broken[0].error.contains("turbo"), "{broken:?}");
        store.apply(Event::Apply(object("newer", json!({}))));
        assert!(store.split().1.is_empty(), "mended");
        store.apply(Event::Delete(object("good", json!({}))));
        assert_eq!(store.split().0.len(), 1);
    }

    /// A phase or a verdict of a newer version: neither object may vanish, or its node is counted nowhere and its class is guessed.
    #[test]
    fn what_the_product_itself_wrote_and_this_version_cannot_parse_is_known_as_such() {
        let stores = Stores::default();
        let json = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeRevision", "metadata": {"name": "config-1"},
            "spec": {}, "status": {"verdict": "Doubtful"}});
        stores.revisions.apply(Event::Apply(serde_json::from_value(json).unwrap()));
        let json = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": "n"},
            "spec": {"nodeName": "n"}, "status": {"phase": "Dreaming"}});
        stores.runtime_nodes.apply(Event::Apply(serde_json::from_value(json).unwrap()));
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"a": "b"}}});
        stores.nodes.apply(Event::Apply(serde_json::from_value(node).unwrap()));
        let world = stores.world();
        assert!(world.broken_revisions["config-1"].error.contains("Doubtful"), "{world:?}");
        assert!(world.broken_runtime_nodes["n"].error.contains("Dreaming"), "{world:?}");
        let unknown: Vec<_> = world.unknown().map(|u| (u.name, u.kind, u.labels["a"].clone())).collect();
        assert_eq!(unknown, [("n", "RuntimeNode", "b".to_owned())]);
    }

    #[test]
    fn of_a_node_only_what_counts_is_kept() {
        let store = Store::<Node>::default();
        let json = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "1", "labels": {"a": "b"},
            "annotations": {"berth.dev/cordoned-since": "x", "volumes.kubernetes.io/y": "z"}},
            "spec": {"unschedulable": true, "podCIDR": "10.0.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}],
                "images": [{"names": ["i"], "sizeBytes": 1}]}});
        store.apply(Event::Apply(serde_json::from_value(json).unwrap()));
        let node = store.split().0.remove("n").unwrap();
        let status = node.status.as_ref().unwrap();
        assert!(status.images.is_none() && status.conditions.as_ref().unwrap().len() == 1, "{node:?}");
        assert!(node.annotations().len() == 1 && node.labels()["a"] == "b");
        assert_eq!(node.spec.as_ref().unwrap().unschedulable, Some(true));
    }

    #[test]
    fn the_newest_pod_of_a_node_that_stays_is_its_agent() {
        let pod = |name: &str, node: &str, minute: u8, goes: bool| {
            let time = |minute: u8| format!("2026-01-01T00:{minute:02}:00Z");
            let json = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"a": "b"},
                "creationTimestamp": time(minute), "deletionTimestamp": goes.then(|| time(59))},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Pending", "podIP": "10.0.0.1", "containerStatuses": [{"name": "c", "image": "i",
                    "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}}]}});
            serde_json::from_value::<DynamicObject>(json).unwrap()
        };
        let store = Store::<Pod>::default();
        for pod in
            [pod("old", "n", 1, false), pod("a", "n", 3, false), pod("goes", "n", 4, true), pod("m", "m", 9, true)]
        {
            store.apply(Event::Apply(pod));
        }
        let (pods, broken) = store.split();
        assert!(broken.is_empty(), "{broken:?}");
        let found = by_node(pods);
        assert_eq!(
            found.iter().map(|(node, pod)| (node.as_str(), pod.name_any())).collect::<Vec<_>>(),
            [("n", "a".to_owned())]
        );
        let status = found["n"].status.as_ref().unwrap();
        assert!(status.pod_ip.is_none() && found["n"].labels().is_empty() && status.container_statuses.is_some());
    }

    #[test]
    fn a_pod_that_is_not_scheduled_counts_for_the_node_that_it_is_for() {
        let term = |values: serde_json::Value| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]});
        let spec = |name: serde_json::Value, terms: serde_json::Value| {
            json!({"nodeName": name, "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let none = serde_json::Value::Null;
        assert_eq!(node_of(&spec(none.clone(), json!([term(json!(["n"]))]))).as_deref(), Some("n"));
        assert_eq!(node_of(&spec(json!("m"), json!([term(json!(["n"]))]))).as_deref(), Some("m"));
        // Somebody else's affinity says nothing of one node.
        let labels = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        for terms in
            [none.clone(), json!([]), json!([labels]), json!([term(json!(["n", "m"]))]), json!([term(json!([]))])]
        {
            assert_eq!(node_of(&spec(none.clone(), terms.clone())), None, "{terms}");
        }
        assert_eq!(node_of(&json!({})), None);
        let json = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": spec(none, json!([term(json!(["n"]))])), "status": {"phase": "Pending"}});
        let store = Store::<Pod>::default();
        store.apply(Event::Apply(serde_json::from_value(json).unwrap()));
        assert!(by_node(store.split().0).contains_key("n"));
    }

    #[test]
    fn a_watch_that_fails_for_long_makes_what_is_known_old() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        troubles.failed("Node", at(0));
        assert!(troubles.fresh(at(50)), "once is nothing");
        (1..=3).for_each(|n| troubles.failed("Node", at(25 * n)));
        assert!(!troubles.fresh(at(80)));
        assert!(troubles.fresh(at(140)), "it has not failed since");
        troubles.failed("Node", at(300));
        assert!(troubles.fresh(at(301)), "that is another time");
        troubles.ended = true;
        assert!(!troubles.fresh(at(301)));
    }
}
