//! Metrics: the daemon's series, for the agent of a cluster, which serves them where the node's loopback cannot be reached.
use crate::service::DaemonFacts;
use berth_model::Result;
use berth_proto::node as wire;

pub(crate) fn call(facts: &DaemonFacts) -> Result<wire::MetricsResponse> {
    (facts.metrics.0)().map(|text| wire::MetricsResponse { text })
}
