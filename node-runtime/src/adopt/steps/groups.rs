//! The control groups of pods by the driver that the kubelet does not go by any more: it never looks at them again, and they would stay until the
//! node is booted.
//!
//! Owns: which these are, and waiting until they are empty. Must not: end a process, or have an operation fail that is through.
use super::Node;
use crate::adopt::now_seconds;
use crate::kubelets;
use anyhow::{Result, bail};
use berth_adopt::{Direction, Plan};
use berth_cgroups::{Cgroups, Driver};
use std::time::{Duration, Instant};

/// How long the pods may take to end that the kubelet has found there: twice the grace that pods have who ask for none.
const LIMIT: Duration = Duration::from_secs(60);
/// Time of the operation's that is left for its end.
const MARGIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);

/// Takes them away once they are empty, as the kubelet is proven to be on the other driver. What is in the way is told.
pub(super) async fn leave_former(node: &Node<'_>) {
    let Some(former) = former(node.plan) else { return };
    // No driver that this node could have had.
    let Ok(cgroups) = Cgroups::probe(former) else { return };
    let Some(pid) = kubelets::of_this_node().first().copied() else { return };
    let group = kubelets::configuration(pid).pods_group(former == Driver::Systemd);
    // What is proven is not to fail for want of time.
    let left = Duration::from_secs(node.plan.deadline.saturating_sub(now_seconds())).saturating_sub(MARGIN);
    if let Err(e) = go(&cgroups, &group, LIMIT.min(left)).await {
        node.talk.say(&format!("{group}, of the former cgroup driver, stays until the node is booted: {e:#}"));
    }
}

/// The driver that the kubelet had before, where it was started anew for the sake of that; `None`: for something else.
fn former(plan: &Plan) -> Option<Driver> {
    let restarted = plan.direction == Direction::Configure && plan.restart;
    match plan.to.cgroup_driver.as_deref().filter(|_| restarted)? {
        "systemd" => Some(Driver::Cgroupfs),
        "cgroupfs" => Some(Driver::Systemd),
        _ => None,
    }
}

async fn go(cgroups: &Cgroups, group: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while !cgroups.remove_empty(group).await? {
        if Instant::now() > end {
            bail!("processes are in it after {} s", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_kubelet_that_was_started_for_its_driver_has_a_former_one() {
        let former = |direction: &str, restart: bool, driver: Option<&str>| {
            let runtime = json!({"socket": "/run/x.sock", "name": "x", "version": "1", "cgroupDriver": driver});
            let plan = json!({
                "id": "op", "direction": direction, "profile": "command", "bootId": "b", "deadline": 0, "permission": "person",
                "from": runtime, "to": runtime, "commands": {"stop": [], "start": []}, "healthz": null, "restart": restart,
                "files": [], "images": [], "pods": [], "steps": [], "notes": [],
                "install": {"prefix": "/x", "from": "/x", "version": "1", "currentBefore": null, "stagedBefore": true,
                    "prefixBefore": true, "daemonBefore": false, "systemd": false, "unitBefore": false},
            });
            super::former(&serde_json::from_value(plan).unwrap())
        };
        assert_eq!(former("configure", true, Some("systemd")), Some(Driver::Cgroupfs));
        assert_eq!(former("configure", true, Some("cgroupfs")), Some(Driver::Systemd));
        for (direction, restart, driver) in
            [("configure", false, Some("systemd")), ("adopt", true, Some("systemd")), ("configure", true, None)]
        {
            assert_eq!(former(direction, restart, driver), None, "{direction} {restart} {driver:?}");
        }
    }
}
