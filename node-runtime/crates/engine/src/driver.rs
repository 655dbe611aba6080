//! The cgroup driver: what settings come to, and what it takes to have another one.
//!
//! A kubelet asks the runtime for the driver at its own start only (KEP-4033; from 1.34 on its own setting does not count): with another one it
//! has to be started anew, and makes every pod that is left anew then (`syncPod` in pkg/kubelet/kubelet.go: a running pod whose group is not where
//! the driver has it). Owns: that judgement. Must not: know a kubelet; whoever gives settings sees to it.
use crate::context::Engine;
use berth_cgroups::{Cgroups, Driver};
use berth_model::{Error, ErrorKind, Result};
use berth_settings::{CgroupManager, Change, Class, Settings};

/// The field that says it.
const FIELD: &str = "spec.runtime.cgroupManager";

/// The driver of a daemon that starts with these settings.
pub fn driver(settings: &Settings) -> Driver {
    match settings.cgroup_manager {
        Some(CgroupManager::Systemd) => Driver::Systemd,
        Some(CgroupManager::Cgroupfs) => Driver::Cgroupfs,
        None => Cgroups::default_driver(),
    }
}

impl Engine {
    /// Whether a daemon could start with the driver of these settings. Errors: `FailedPrecondition` with the field and what the node lacks.
    pub fn check_driver(&self, wanted: &Settings) -> Result<()> {
        let wanted = driver(wanted);
        if wanted == self.cgroup_driver() {
            return Ok(());
        }
        let unfit = |kind, why: &str| Error::new(kind, format!("{FIELD}: comes to {wanted:?}: {why}"));
        Cgroups::probe(wanted).map_err(|e| unfit(e.kind(), e.message()))?;
        if wanted == Driver::Systemd && Cgroups::default_driver() != wanted {
            return Err(unfit(ErrorKind::FailedPrecondition, "systemd is not process 1 of this node; set Cgroupfs"));
        }
        Ok(())
    }

    /// The changes as what they take on this node: to name the driver that it has anyway takes no pod away.
    pub fn weighed(&self, changes: Vec<Change>, wanted: &Settings) -> Vec<Change> {
        weighed(changes, driver(wanted) == self.cgroup_driver())
    }
}

fn weighed(changes: Vec<Change>, same: bool) -> Vec<Change> {
    let weigh = |change: Change| match change.field.as_str() {
        FIELD if same => Change { class: Class::DaemonRestart, ..change },
        _ => change,
    };
    changes.into_iter().map(weigh).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_driver_is_a_drain_and_the_same_by_name_is_not() {
        let change = |class| Change { field: FIELD.to_owned(), class, old: None, new: Some("Cgroupfs".into()) };
        let other = Change { field: "spec.network.mode".to_owned(), ..change(Class::DaemonRestart) };
        let changes = vec![change(Class::Drain), other.clone()];
        assert_eq!(weighed(changes.clone(), false), changes);
        assert_eq!(weighed(changes, true), [change(Class::DaemonRestart), other]);
    }
}
