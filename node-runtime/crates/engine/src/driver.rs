//! The cgroup driver: what settings come to, and whether the kubelet goes by that one.
//!
//! Owns: that judgement, by the pods that the kubelet has made. Must not: read what a kubelet was told; from 1.34 on its own setting does not
//! count, and it asks the runtime, at its start only (KEP-4033).
use crate::context::Engine;
use crate::table::{PodFilter, PodView};
use berth_cgroups::{Cgroups, Driver};
use berth_model::{Error, ErrorKind, Result};
use berth_settings::{CgroupManager, Settings};

/// A label of every pod of a kubelet (`KubernetesPodUIDLabel`, k8s.io/kubelet, pkg/types/labels.go).
const OF_A_KUBELET: &str = "io.kubernetes.pod.uid";

/// The driver of a daemon that starts with these settings.
pub fn driver(settings: &Settings) -> Driver {
    match settings.cgroup_manager {
        Some(CgroupManager::Systemd) => Driver::Systemd,
        Some(CgroupManager::Cgroupfs) => Driver::Cgroupfs,
        None => Cgroups::default_driver(),
    }
}

impl Engine {
    /// Whether the kubelet would go on to make pods under a daemon with these settings. Errors: `FailedPrecondition` where its pods are of the
    /// other driver.
    pub fn check_driver(&self, wanted: &Settings) -> Result<()> {
        check(driver(wanted), &self.pods(&PodFilter::default()))
    }
}

/// Without a pod of a kubelet nothing is known of it. In a cluster there is one: the agent's.
fn check(wanted: Driver, pods: &[PodView]) -> Result<()> {
    let Some((pod, theirs)) = newest(pods).filter(|(_, theirs)| *theirs != wanted) else { return Ok(()) };
    let (named, name) = (format!("{wanted:?}").to_lowercase(), format!("{theirs:?}").to_lowercase());
    let metadata = &pod.record.config.metadata;
    let problem = format!(
        "spec.runtime.cgroupManager: comes to {named}, and the kubelet goes by {name}, as pod {}/{} shows: it takes the driver at its own \
         start only, and no pod that it made from then on would start. Set {theirs:?}; or give the node back (state: Absent), change the \
         driver of the runtime that it has then, and take it over with {wanted:?}",
        metadata.namespace, metadata.name
    );
    Err(Error::new(ErrorKind::FailedPrecondition, problem))
}

/// The kubelet's newest pod that has a parent group, and the driver that the parent's name is for (pkg/kubelet/cm/cgroup_manager_linux.go,
/// `ToSystemd` and `ToCgroupfs`).
fn newest(pods: &[PodView]) -> Option<(&PodView, Driver)> {
    let own = |pod: &&PodView| {
        let config = &pod.record.config;
        config.labels.contains_key(OF_A_KUBELET) && !config.cgroup_parent.is_empty()
    };
    let pod = pods.iter().filter(own).max_by_key(|pod| pod.record.created_at)?;
    let slice = pod.record.config.cgroup_parent.trim_end_matches('/').ends_with(".slice");
    Some((pod, if slice { Driver::Systemd } else { Driver::Cgroupfs }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PodRecord;
    use berth_model::{PodConfig, PodId, PodMetadata};
    use std::sync::Arc;

    const SLICE: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
    const PATH: &str = "/kubepods/burstable/pod1-2";

    fn pod(name: &str, parent: &str, created_at: i64) -> PodView {
        let metadata = PodMetadata { name: name.into(), namespace: "default".into(), ..PodMetadata::default() };
        let labels = [(OF_A_KUBELET.to_owned(), "1-2".to_owned())].into();
        let config = PodConfig { metadata, labels, cgroup_parent: parent.into(), ..PodConfig::default() };
        let record = PodRecord { created_at, ..PodRecord::of_test(config) };
        PodView { id: PodId::from_random([0xaa; 32]), record: Arc::new(record) }
    }

    #[test]
    fn the_kubelets_pods_say_what_it_goes_by() {
        for (parent, theirs, other) in
            [(SLICE, Driver::Systemd, Driver::Cgroupfs), (PATH, Driver::Cgroupfs, Driver::Systemd)]
        {
            let pods = [pod("web", parent, 5)];
            check(theirs, &pods).unwrap();
            let error = check(other, &pods).unwrap_err();
            let message = error.message();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
            assert!(
                message.starts_with("spec.runtime.cgroupManager: ") && message.contains("default/web"),
                "{message}"
            );
            assert!(message.contains(&format!("Set {theirs:?}")) && message.contains("state: Absent"), "{message}");
            // What an agent tells of it is cut there (`agent/src/report.rs`).
            assert!(message.chars().count() < 512, "{message}");
        }
    }

    #[test]
    fn a_kubelet_that_was_started_since_is_known_by_its_newest_pod() {
        let pods = [pod("old", PATH, 5), pod("new", SLICE, 7), pod("older", PATH, 3)];
        check(Driver::Systemd, &pods).unwrap();
        assert!(check(Driver::Cgroupfs, &pods).unwrap_err().message().contains("default/new"));
    }

    #[test]
    fn pods_of_others_and_without_a_parent_say_nothing() {
        let mut others = pod("crictl", SLICE, 9);
        Arc::get_mut(&mut others.record).unwrap().config.labels.clear();
        let pods = [others, pod("bare", "", 8)];
        for wanted in [Driver::Systemd, Driver::Cgroupfs] {
            check(wanted, &pods).unwrap();
            check(wanted, &[]).unwrap();
        }
    }
}
