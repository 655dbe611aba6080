//! What the node as a whole says: conditions, driver.
use crate::context::Engine;
use berth_cgroups::Driver;
use berth_network::{Choice, CniReport};
use berth_oci::spec::NodeFacts;

/// One condition of the CRI's Status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady` or `NetworkReady`; where AppArmor is on also `AppArmorReady`.
    pub kind: &'static str,
    /// Holds.
    pub ok: bool,
    /// One word, empty when it holds.
    pub reason: &'static str,
    /// For people, with the remedy.
    pub message: String,
}

/// The node's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Conditions.
    pub conditions: Vec<Condition>,
}

impl Engine {
    /// Conditions. RuntimeReady does not depend on the network.
    pub async fn status(&self) -> NodeStatus {
        let network = self.network.ready().await;
        let runtime = Condition { kind: "RuntimeReady", ok: true, reason: "", message: String::new() };
        let network = match network {
            // Pods of one bridge reach each other whatever a firewall forwards: told, and ready all the same.
            Ok(()) => {
                let found: Vec<String> = self.firewalls().iter().map(ToString::to_string).collect();
                Condition { kind: "NetworkReady", ok: true, reason: "", message: found.join("; ") }
            }
            Err(message) => Condition { kind: "NetworkReady", ok: false, reason: "NetworkPluginNotReady", message },
        };
        let mut conditions = vec![runtime, network];
        if self.facts.apparmor {
            conditions.push(self.apparmor_condition());
        }
        NodeStatus { conditions }
    }

    /// A condition of its own, which the kubelet does not judge by: RuntimeReady would keep off the very pods that may mend it.
    fn apparmor_condition(&self) -> Condition {
        let problem = self.apparmor.problem();
        let reason = if problem.is_none() { "" } else { "DefaultProfileNotLoaded" };
        Condition { kind: "AppArmorReady", ok: problem.is_none(), reason, message: problem.unwrap_or_default() }
    }

    /// What the CNI client knows: the network, files that are refused, attachments that could not be deleted yet, pods whose
    /// network CHECK finds broken. `None` where the built-in network connects pods and nothing is left to delete.
    pub fn cni_report(&self) -> Option<CniReport> {
        let report = self.network.cni.report();
        let of_use = self.network.choice == Choice::Cni || !report.pending.is_empty() || !report.broken.is_empty();
        of_use.then_some(report)
    }

    /// The cgroup driver, constant while the daemon runs.
    pub fn cgroup_driver(&self) -> Driver {
        self.cgroups.driver()
    }

    /// Layout of the cgroup mounts, for people.
    pub fn cgroup_layout(&self) -> String {
        format!("{:?}", self.cgroups.layout())
    }

    /// Handlers that pods may ask for by a RuntimeClass. The default one's name is empty, as the CRI has it.
    pub fn handlers(&self) -> Vec<String> {
        vec![String::new()]
    }

    /// What this node can do.
    pub fn facts(&self) -> &NodeFacts {
        &self.facts
    }
}
