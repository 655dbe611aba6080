//! What no record owns, at the daemon's start: monitors with what runs below them, control groups, addresses, links, directories, root
//! file systems.
//!
//! Must not: touch anything of a pod whose record cannot be read; remove a record.
use crate::context::{Engine, blocking};
use crate::pod::Pod;
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
        if unknown.is_empty() {
            // Before the network and the root file systems, which the processes use.
            self.end_stray_groups(&pods, &roots).await;
        }
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
                "root file systems and control groups without a container stay, because there are pods that cannot be read"
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
                self.leaked(Leak::Cgroup, ended.groups.len());
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

    /// Ends what runs in control groups of pods and containers that neither a record nor a monitor tells of.
    async fn end_stray_groups(self: &Arc<Self>, pods: &[PodId], roots: &[ContainerId]) {
        let known: HashSet<String> = self.table.all().iter().flat_map(|pod| group_names(pod)).collect();
        let (base, cgroups, parent) = (self.paths.pod_base(), self.cgroups.clone(), self.paths.cgroup_parent.clone());
        let pods = pods.to_vec();
        let lost: HashSet<String> = roots.iter().map(|id| id.as_str().to_owned()).collect();
        let find = move || stray_groups(&cgroups, &parent, &known, lost_names(&base, &pods, lost)?);
        let groups = match blocking(find).await {
            Ok(groups) => groups,
            Err(e) => return tracing::error!(error = %e, "control groups without a record stay"),
        };
        self.leaked(Leak::Cgroup, groups.len());
        for group in groups {
            tracing::info!(cgroup = %group, "a control group without a record is removed, with what runs in it");
            if let Err(e) = self.clear_cgroup(&group).await {
                tracing::error!(cgroup = %group, error = %e, "control group without a record stays");
            }
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

/// The names of a pod's control groups: its own one's and its containers'.
fn group_names(pod: &Pod) -> Vec<String> {
    let containers = pod.record().containers.keys().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
    containers.into_iter().chain([pod.id.as_str().to_owned()]).collect()
}

/// Ids that this root gave and no record has: of root file systems (`lost`), and of pods' directories.
fn lost_names(base: &Path, pods: &[PodId], mut lost: HashSet<String>) -> Result<HashSet<String>> {
    let directories = pod_dir::strays(base, |pod| !pods.contains(pod))?;
    lost.extend(directories.iter().map(|pod| pod.as_str().to_owned()));
    Ok(lost)
}

/// Control groups that are provably this daemon's and stand in no record: below its own parent those that it made, by their mark or
/// name and an id as ours are; wherever the kubelet wanted them those that have processes and the name of a lost id, which is 32
/// random bytes.
fn stray_groups(
    cgroups: &Cgroups,
    parent: &str,
    known: &HashSet<String>,
    lost: HashSet<String>,
) -> Result<HashSet<CgroupPath>> {
    let made = cgroups.made_below(parent)?.into_iter();
    let mut found: HashSet<CgroupPath> = made
        .filter(|(name, _)| ContainerId::parse(name).is_ok() && !known.contains(name))
        .map(|(_, group)| group)
        .collect();
    if !lost.is_empty() {
        let of = |pid| lost.iter().find_map(|name| cgroups.group_named(pid, name));
        found.extend(processes::all()?.into_iter().filter_map(of));
    }
    Ok(found)
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
