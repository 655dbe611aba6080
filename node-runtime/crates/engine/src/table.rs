//! The pod table in memory: what lists and statuses are answered from. Nothing here waits for anything but a short lock.
use crate::pod::Pod;
use crate::record::{ContainerRecord, PodPhase, PodRecord};
use berth_model::{ContainerId, ContainerState, Error, ErrorKind, Labels, PodId, PodKey, PodState, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

/// A pod at one moment.
#[derive(Debug, Clone)]
pub struct PodView {
    /// Id.
    pub id: PodId,
    /// All of it.
    pub record: Arc<PodRecord>,
}

/// A container at one moment.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// Id.
    pub id: ContainerId,
    /// Its pod's id.
    pub pod: PodId,
    /// Its pod, with the container inside.
    pub pod_record: Arc<PodRecord>,
    /// The container.
    pub record: ContainerRecord,
}

/// Which pods to list; all that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct PodFilter {
    /// Id or prefix; empty is any.
    pub id: String,
    /// State.
    pub state: Option<PodState>,
    /// Labels that must be there.
    pub labels: Labels,
}

/// Which containers to list; all that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct ContainerFilter {
    /// Id or prefix; empty is any.
    pub id: String,
    /// Pod's id or prefix; empty is any.
    pub pod: String,
    /// State.
    pub state: Option<ContainerState>,
    /// Labels that must be there.
    pub labels: Labels,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<PodId, Arc<Pod>>,
    keys: HashMap<PodKey, PodId>,
    containers: BTreeMap<ContainerId, PodId>,
}

/// The table.
#[derive(Default)]
pub(crate) struct Table(RwLock<Inner>);

impl Table {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a pod with the containers of its record.
    pub(crate) fn insert(&self, pod: Arc<Pod>) {
        let record = pod.record();
        let mut inner = self.write();
        inner.keys.insert(record.config.metadata.clone(), pod.id.clone());
        for id in record.containers.keys() {
            inner.containers.insert(id.clone(), pod.id.clone());
        }
        inner.pods.insert(pod.id.clone(), pod);
    }

    /// Takes a pod and its containers out.
    pub(crate) fn remove(&self, id: &PodId) {
        let mut inner = self.write();
        inner.pods.remove(id);
        inner.keys.retain(|_, pod| pod != id);
        inner.containers.retain(|_, pod| pod != id);
    }

    pub(crate) fn insert_container(&self, id: ContainerId, pod: PodId) {
        self.write().containers.insert(id, pod);
    }

    pub(crate) fn remove_container(&self, id: &ContainerId) {
        self.write().containers.remove(id);
    }

    /// All pods, half-made ones included.
    pub(crate) fn all(&self) -> Vec<Arc<Pod>> {
        self.read().pods.values().cloned().collect()
    }

    pub(crate) fn by_key(&self, key: &PodKey) -> Option<Arc<Pod>> {
        let inner = self.read();
        inner.keys.get(key).and_then(|id| inner.pods.get(id)).cloned()
    }

    /// The pod by full id or unique prefix. Errors: `NotFound`, or `InvalidArgument` for a prefix of several.
    pub(crate) fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        let inner = self.read();
        let id = unique(&inner.pods, id, "pod")?;
        inner.pods.get(id).cloned().ok_or_else(|| Error::not_found("pod", id))
    }

    /// The container by full id or unique prefix, with its pod.
    pub(crate) fn container(&self, id: &str) -> Result<(Arc<Pod>, ContainerId)> {
        let inner = self.read();
        let id = unique(&inner.containers, id, "container")?;
        let pod = inner.containers.get(id).and_then(|pod| inner.pods.get(pod)).cloned();
        pod.map(|pod| (pod, id.clone())).ok_or_else(|| Error::not_found("container", id))
    }

    pub(crate) fn pods(&self, filter: &PodFilter) -> Vec<PodView> {
        let shown = |pod: &Arc<Pod>| {
            let record = pod.record();
            let matches = pod.id.as_str().starts_with(&filter.id)
                && filter.state.is_none_or(|s| s == record.state())
                && has_labels(&record.config.labels, &filter.labels)
                && record.phase != PodPhase::Creating;
            matches.then(|| PodView { id: pod.id.clone(), record })
        };
        self.all().iter().filter_map(shown).collect()
    }

    pub(crate) fn containers(&self, filter: &ContainerFilter) -> Vec<ContainerView> {
        let mut views = Vec::new();
        for pod in self.all().iter().filter(|p| p.id.as_str().starts_with(&filter.pod)) {
            let pod_record = pod.record();
            for (id, record) in &pod_record.containers {
                let matches = id.as_str().starts_with(&filter.id)
                    && filter.state.is_none_or(|s| s == record.state())
                    && has_labels(&record.config.labels, &filter.labels);
                if matches {
                    let (pod_record, record) = (pod_record.clone(), record.clone());
                    views.push(ContainerView { id: id.clone(), pod: pod.id.clone(), pod_record, record });
                }
            }
        }
        views
    }
}

fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Ids sort by their text, so those with one prefix stand together.
fn unique<'a, K: Ord + AsId, V>(map: &'a BTreeMap<K, V>, text: &str, kind: &str) -> Result<&'a K> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{kind} id"), "must not be empty"));
    }
    let mut matches = map.keys().filter(|id| id.id().starts_with(text));
    match (matches.next(), matches.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Error::not_found(kind, text)),
        (Some(_), Some(_)) => {
            let problem = format!("{text:?} is the beginning of several {kind}s; write more digits");
            Err(Error::new(ErrorKind::InvalidArgument, problem))
        }
    }
}

trait AsId {
    fn id(&self) -> &str;
}

impl AsId for PodId {
    fn id(&self) -> &str {
        self.as_str()
    }
}

impl AsId for ContainerId {
    fn id(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_must_be_unique() {
        let ids: BTreeMap<PodId, ()> =
            [[0xaa; 32], [0xab; 32]].into_iter().map(|b| (PodId::from_random(b), ())).collect();
        assert_eq!(unique(&ids, "aa", "pod").unwrap().short(), "aaaaaaaaaaaa");
        assert_eq!(unique(&ids, "a", "pod").unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(unique(&ids, "c", "pod").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(unique(&ids, "", "pod").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
