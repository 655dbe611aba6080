//! Watched objects, by name. An object that this version cannot parse is kept as such: it freezes what it is about, and nothing else.
//!
//! Must not: panic or stop at whatever the API server, or a proxy before it, answers: a watch that fails is begun again, with growing pauses.
use super::world::{Broken, World};
use crate::observe::Metrics;
use berth_crds::{ImagePolicyObject, RuntimeConfigObject, RuntimeNode, RuntimeRevision};
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The objects of one kind.
#[derive(Debug)]
pub struct Store<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<String, Result<T, Broken>>,
    /// What a list that is not complete yet has brought.
    coming: BTreeMap<String, Result<T, Broken>>,
    synced: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { objects: BTreeMap::new(), coming: BTreeMap::new(), synced: false }) }
    }
}

impl<T: DeserializeOwned + Clone> Store<T> {
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
    pub fn split(&self) -> (BTreeMap<String, T>, Vec<Broken>) {
        let inner = self.lock();
        let (mut good, mut broken) = (BTreeMap::new(), Vec::new());
        for (name, object) in &inner.objects {
            match object {
                Ok(object) => drop(good.insert(name.clone(), object.clone())),
                Err(e) => broken.push(e.clone()),
            }
        }
        (good, broken)
    }
}

fn parse<T: DeserializeOwned>(mut object: DynamicObject) -> Result<T, Broken> {
    object.metadata.managed_fields = None;
    let value = serde_json::to_value(&object).unwrap_or_default();
    T::deserialize(&value).map_err(|e| Broken { name: object.name_any(), error: e.to_string(), object: value })
}

/// All that is watched.
#[derive(Debug, Default)]
pub struct Stores {
    nodes: Store<Node>,
    runtime_nodes: Store<RuntimeNode>,
    configs: Store<RuntimeConfigObject>,
    policies: Store<ImagePolicyObject>,
    revisions: Store<RuntimeRevision>,
    /// Something has changed.
    pub changed: Notify,
}

impl Stores {
    /// Begins to watch.
    pub fn watch(client: &Client, metrics: &Metrics) -> Arc<Self> {
        let stores = Arc::new(Self::default());
        macro_rules! follow {
            ($($field:ident: $kind:ty),*) => { $(
                let api = Api::all_with(client.clone(), &ApiResource::erase::<$kind>(&()));
                let kind = <$kind as Resource>::kind(&()).into_owned();
                tokio::spawn(follow(api, kind, Arc::clone(&stores), |s| &s.$field, metrics.clone()));
            )* };
        }
        follow!(nodes: Node, runtime_nodes: RuntimeNode, configs: RuntimeConfigObject, policies: ImagePolicyObject, revisions: RuntimeRevision);
        stores
    }

    /// Whether all kinds have been listed once.
    pub fn synced(&self) -> bool {
        self.nodes.synced()
            && self.runtime_nodes.synced()
            && self.configs.synced()
            && self.policies.synced()
            && self.revisions.synced()
    }

    /// What is known now.
    pub fn world(&self) -> World {
        let (nodes, broken_nodes) = self.nodes.split();
        let (runtime_nodes, broken_runtime_nodes) = self.runtime_nodes.split();
        let (configs, broken_configs) = self.configs.split();
        let (policies, broken_policies) = self.policies.split();
        let (revisions, _) = self.revisions.split();
        let broken_nodes = broken_nodes.into_iter().chain(broken_runtime_nodes).map(|b| b.name).collect();
        World { nodes, runtime_nodes, configs, policies, revisions, broken_nodes, broken_configs, broken_policies }
    }
}

async fn follow<T: DeserializeOwned + Clone + Send + 'static>(
    api: Api<DynamicObject>,
    kind: String,
    stores: Arc<Stores>,
    store: fn(&Stores) -> &Store<T>,
    metrics: Metrics,
) {
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                store(&stores).apply(event);
                stores.changed.notify_one();
            }
            Err(e) => {
                metrics.watch_failed(&kind);
                tracing::warn!(kind, error = %e, "a watch failed and is begun again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
