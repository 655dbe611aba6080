//! Control groups: controllers, layout, and whether kubelet and daemon agree on the driver.
use crate::doctor::facts::Facts;
use crate::doctor::finding::{CGROUP_HYBRID, CONTROLLER_MISSING, DRIVER_DIFFERS, Finding};

/// What limits of pods need.
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

pub(super) fn cgroups(facts: &Facts, found: &mut Vec<Finding>) {
    let cgroups = &facts.cgroups;
    let missing: Vec<&str> = NEEDED.into_iter().filter(|n| !cgroups.controllers.iter().any(|c| c == n)).collect();
    if !cgroups.layout.is_empty() && !missing.is_empty() {
        let what = format!("{} of {} have no controller (layout {})", missing.len(), NEEDED.len(), cgroups.layout);
        let fix = match cgroups.layout {
            "v2" => format!(
                "echo '+{}' > /sys/fs/cgroup/cgroup.subtree_control; Delegate=yes in the daemon's unit",
                missing.join(" +")
            ),
            _ => "see cgroup_disable= in /proc/cmdline".to_owned(),
        };
        found.push(CONTROLLER_MISSING.found(format!("{what}: {}", missing.join(", ")), fix));
    }
    if matches!(cgroups.layout, "v1" | "hybrid") {
        let what = format!("the layout is {}", cgroups.layout);
        found.push(
            CGROUP_HYBRID.found(what, "systemd.unified_cgroup_hierarchy=1 on the kernel's command line, when it suits"),
        );
    }
    let own = facts.daemon.info.as_ref().map_or("", |i| i.cgroup_driver.as_str());
    // From 1.34 on the kubelet asks the runtime, which tells, and its own setting does not count (KEP-4033, KubeletCgroupDriverFromCRI).
    for kubelet in facts.kubelets.iter().filter(|k| !own.is_empty() && !k.setting("cgroupDriver").is_empty()) {
        let theirs = kubelet.setting("cgroupDriver");
        if theirs != own {
            let what = format!(
                "the daemon has {own}, the kubelet (process {}) has {theirs}: a kubelet before 1.34 goes by that",
                kubelet.pid
            );
            let name = if theirs == "systemd" { "Systemd" } else { "Cgroupfs" };
            let fix = format!(
                "spec.runtime.cgroupManager: {name} in a RuntimeConfig and restart, or cgroupDriver: {own} in the kubelet's"
            );
            found.push(DRIVER_DIFFERS.found(what, fix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Cgroups, Kubelet};
    use berth_proto::node::InfoResponse;

    fn ids(facts: &Facts) -> Vec<&'static str> {
        let mut found = Vec::new();
        cgroups(facts, &mut found);
        found.iter().map(|f| f.id).collect()
    }

    #[test]
    fn controllers_and_layout() {
        let all = NEEDED.map(str::to_owned).to_vec();
        let mut facts =
            Facts { cgroups: Cgroups { layout: "v2", controllers: all, ..Cgroups::default() }, ..Facts::default() };
        assert_eq!(ids(&facts), [""; 0]);
        facts.cgroups.controllers.pop();
        assert_eq!(ids(&facts), ["controller-missing"]);
        facts.cgroups.layout = "hybrid";
        assert_eq!(ids(&facts), ["controller-missing", "cgroup-v1"]);
    }

    #[test]
    fn drivers_must_agree() {
        let mut facts = Facts { kubelets: vec![Kubelet::default()], ..Facts::default() };
        facts.kubelets[0].settings.insert("cgroupDriver".into(), "systemd".into());
        assert_eq!(ids(&facts), [""; 0], "the daemon's is not known");
        let with = |driver: &str| Some(InfoResponse { cgroup_driver: driver.into(), ..Default::default() });
        facts.daemon.info = with("systemd");
        assert_eq!(ids(&facts), [""; 0]);
        facts.daemon.info = with("cgroupfs");
        assert_eq!(ids(&facts), ["cgroup-driver"]);
    }
}
