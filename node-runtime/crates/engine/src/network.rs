//! The network of the node as a whole: the pod CIDR that the kubelet tells, upkeep, and what is told of it.
//!
//! Must not: attach pods (`pod/run.rs`).
use crate::context::Engine;
use berth_model::Result;
use berth_network::{ForwardDrop, IpNet, PoolUsage, pod_cidr};
use std::sync::Arc;
use std::time::Duration;

/// How often the network is looked after. Whoever flushes the node's ruleset breaks host ports for that long at most.
const UPKEEP: Duration = Duration::from_secs(10);

impl Engine {
    /// Takes the pod CIDR of the node, one subnet or two with a comma between them (one of each family), and gives it to the
    /// built-in network if nobody has named its subnet, and to CNI plugins that declare the capability `ipRanges`. Errors: `InvalidArgument` naming the field.
    pub async fn set_pod_cidr(&self, text: &str) -> Result<()> {
        let (four, six) = pod_cidr(text)?;
        let both = [four.map(IpNet::V4), six.map(IpNet::V6)];
        self.network.cni.set_pod_cidrs(both.into_iter().flatten().collect()).await;
        let Some(bridge) = &self.network.builtin else {
            tracing::info!(pod_cidr = text, "the kubelet tells the node's pod CIDR");
            return Ok(());
        };
        match bridge.follow(four, six).await {
            Ok(true) => tracing::info!(pod_cidr = text, "the built-in network has the node's pod CIDR"),
            Ok(false) => tracing::warn!(
                pod_cidr = text,
                subnet = %bridge.config().subnet,
                "the built-in network keeps its own subnet: spec.network names it, or pods have addresses of it"
            ),
            Err(e) => {
                tracing::error!(pod_cidr = text, error = %e, "the built-in network cannot have the node's pod CIDR")
            }
        }
        Ok(())
    }

    /// The subnets of the built-in network, for people; empty without one.
    pub fn subnets(&self) -> String {
        let Some(config) = self.network.builtin.as_ref().map(|bridge| bridge.config()) else { return String::new() };
        let six = config.subnet6.map(|net| format!(", {net}")).unwrap_or_default();
        format!("{}{six}", config.subnet)
    }

    /// How many addresses the built-in network has for pods, and how many are in use.
    pub fn address_pool(&self) -> Option<PoolUsage> {
        self.network.builtin.as_ref().map(|bridge| bridge.usage())
    }

    /// Chains of the node's firewalls that drop what the built-in network forwards.
    pub fn firewalls(&self) -> Vec<ForwardDrop> {
        self.network.builtin.as_ref().map(|bridge| bridge.firewalls()).unwrap_or_default()
    }

    /// Looks after the built-in network for as long as the engine lives.
    pub fn keep_network(self: &Arc<Self>) {
        let Some(bridge) = self.network.builtin.clone() else { return };
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                let Some(engine) = engine.upgrade() else { return };
                match bridge.maintain().await {
                    Ok(None) => {}
                    Ok(Some(problem)) => {
                        engine.metrics.event("network_repaired");
                        tracing::warn!(problem, "the built-in network was repaired");
                    }
                    Err(e) => tracing::error!(error = %e, "the built-in network is broken and cannot be repaired"),
                }
            }
        });
    }
}
