//! What no record owns, at the daemon's start: monitors with what runs below them, addresses, links, directories, root file systems.
//!
//! Must not: touch anything of a pod whose record cannot be read; remove a record.
use crate::context::{Engine, blocking};
use crate::pod::stop::KILL_WAIT;
use berth_cgroups::{CgroupPath, Cgroups};
use berth_model::{ContainerId, Leak, Observation, PodId, Result};
use berth_oci::{pod_dir, processes};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

impl Engine {
    /// Removes everything that no record owns. What cannot be removed is told, and found again by the next start.
    pub(crate) async fn reconcile(self: &Arc<Self>) {
        let mut pods: Vec<PodId> = self.table.all().iter().map(|p| p.id.clone()).collect();
        // What this build cannot read another one can: a newer build's pods run on, with their monitors and addresses.
        let unknown = self.unknown_pods();
        pods.extend(unknown.keys().filter_map(|id| PodId::parse(id).ok()));
        let roots = self.rootfs_strays();
        self.end_stray_pods(&pods, &roots).await;
        match self.network.recover(&pods).await {
            Ok(done) => {
                self.leaked(Leak::Lease, done.leases.len());
                self.leaked(Leak::Interface, done.interfaces.len());
                self.leaked(Leak::NftElement, done.elements.len());
                tracing::debug!(?done, "network is reconciled");
            }
            Err(e) => tracing::error!(error = %e, "network cannot be reconciled"),
        }
        // After the network, which finds what is left in a namespace that is bound here.
        self.remove_stray_directories(pods).await;
        if !unknown.is_empty() {
            // Nobody can say which containers these pods have.
            tracing::warn!(
                pods = unknown.len(),
                "root file systems without a container stay, because there are pods that cannot be read"
            );
            return;
        }
        for owner in roots {
            self.leaked(Leak::Rootfs, 1);
            tracing::info!(container = %owner, "a root file system without a container is removed");
            if let Err(e) = self.images.remove_rootfs(&owner).await {
                tracing::error!(container = %owner, error = %e, "root file system stays");
            }
        }
    }

    /// Containers that have a root file system and stand in no record that can be read.
    fn rootfs_strays(&self) -> Vec<ContainerId> {
        let containers: HashSet<ContainerId> =
            self.table.all().iter().flat_map(|p| p.record().containers.keys().cloned().collect::<Vec<_>>()).collect();
        self.images.rootfs_owners().into_iter().filter(|owner| !containers.contains(owner)).collect()
    }

    /// Ends the monitors of pods that are not `known`, and first what they supervise: nobody else would.
    async fn end_stray_pods(self: &Arc<Self>, known: &[PodId], roots: &[ContainerId]) {
        let (base, cgroups) = (self.paths.pod_base(), self.cgroups.clone());
        let known: HashSet<String> = known.iter().map(|id| id.as_str().to_owned()).collect();
        let containers: Vec<String> = roots.iter().map(|id| id.as_str().to_owned()).collect();
        match blocking(move || end_strays(&base, &cgroups, &known, &containers)).await {
            Ok(ended) if ended.monitors > 0 => {
                self.leaked(Leak::Monitor, ended.monitors);
                tracing::info!(count = ended.monitors, "monitors without a pod are ended, with what they supervised");
                for group in ended.groups {
                    if let Err(e) = self.clear_cgroup(&group).await {
                        tracing::error!(cgroup = %group, error = %e, "cgroup of a pod without a record stays");
                    }
                }
            }
            Ok(_) => {}
            Err(e) => tracing::error!(error = %e, "monitors without a pod stay"),
        }
    }

    async fn remove_stray_directories(&self, known: Vec<PodId>) {
        let base = self.paths.pod_base();
        match blocking(move || pod_dir::remove_strays(&base, |pod| !known.contains(pod))).await {
            Ok(0) => {}
            Ok(count) => {
                self.leaked(Leak::Directory, count);
                tracing::info!(count, "directories of pods without a record are removed");
            }
            Err(e) => tracing::error!(error = %e, "a directory of a pod without a record stays"),
        }
    }

    fn leaked(&self, what: Leak, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.tell(Observation::Leaked { what, count });
    }
}

/// What [`end_strays`] found.
struct Ended {
    monitors: usize,
    /// Groups of what they supervised; killed, and still to be removed.
    groups: HashSet<CgroupPath>,
}

/// Without its record nobody knows a pod's cgroups: they are those of the processes below its monitor, which is their subreaper.
fn end_strays(base: &Path, cgroups: &Cgroups, known: &HashSet<String>, containers: &[String]) -> Result<Ended> {
    let mut ended = Ended { monitors: 0, groups: HashSet::new() };
    for stray in processes::monitors(base)?.into_iter().filter(|m| !known.contains(&m.pod)) {
        let names = || containers.iter().map(String::as_str).chain([stray.pod.as_str()]);
        let group_of = |pid| names().find_map(|name| cgroups.group_named(pid, name));
        let groups: HashSet<CgroupPath> = stray.tree().into_iter().filter_map(group_of).collect();
        for group in &groups {
            cgroups.kill(group, KILL_WAIT)?;
        }
        ended.groups.extend(groups);
        stray.kill_tree()?;
        ended.monitors += processes::kill_monitors(base, |pod| pod == stray.pod)?;
    }
    Ok(ended)
}
