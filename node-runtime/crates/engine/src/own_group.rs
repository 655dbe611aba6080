//! The daemon's own control group, and giving back what a daemon without pods need not leave.
use crate::context::{Engine, blocking};
use berth_cgroups::CgroupPath;
use berth_model::Result;

/// Name of the daemon's own cgroup, where it makes one; beside the monitors'.
const DAEMON: &str = "daemon";

impl Engine {
    /// Leaves the groups where pods are, if the daemon was started there; a service of systemd has a group of its own. A failure
    /// is told and is no reason not to serve: pods are limited all the same.
    pub async fn leave_pods_groups(&self) {
        let (cgroups, pods, base) =
            (self.cgroups.clone(), self.paths.cgroup_parent.clone(), self.paths.runtime_group());
        match blocking(move || cgroups.set_apart(&pods, &base, DAEMON)).await {
            Ok(Some(apart)) => {
                tracing::debug!(?apart, "the daemon has a cgroup of its own");
                let _ = self.apart.set(apart);
            }
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "the daemon stays in the cgroup that it was started in"),
        }
    }

    /// A leaf cgroup for the runtime's helper processes of one kind, outside of the pods'; made if it is not there.
    pub(crate) async fn helper_group(&self, name: &'static str) -> Result<CgroupPath> {
        let (cgroups, base) = (self.cgroups.clone(), self.paths.runtime_group());
        blocking(move || cgroups.own_leaf(&base, name, &[])).await
    }

    /// Gives back what a daemon without pods need not leave behind: the private mount of the pods' directories and the
    /// runtime's own cgroups. With pods nothing is done. Returns whether it was.
    pub async fn release(&self) -> Result<bool> {
        if !self.is_idle() {
            return Ok(false);
        }
        let base = self.paths.pod_base();
        blocking(move || berth_oci::pod_dir::release_base(&base)).await?;
        if let Some(apart) = self.apart.get() {
            self.cgroups.rejoin(apart).await?;
        }
        for name in [crate::pod::run::MONITORS, crate::session::STREAMING] {
            let group = self.helper_group(name).await?;
            // Daemons of one service (each with a root of its own) share these: whoever goes last removes them.
            if let Err(e) = self.cgroups.remove(&group).await {
                tracing::warn!(name, error = %e, "a control group that other daemons use too stays");
            }
        }
        self.cgroups.release_parent(&self.paths.cgroup_parent).await?;
        Ok(true)
    }
}
