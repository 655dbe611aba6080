//! UpdateRuntimeConfig: takes note of the pod CIDR; the built-in network has its own subnet.
use berth_proto::cri as wire;

pub(crate) fn call(request: &wire::UpdateRuntimeConfigRequest) -> wire::UpdateRuntimeConfigResponse {
    let network = request.runtime_config.as_ref().and_then(|c| c.network_config.as_ref());
    if let Some(network) = network.filter(|n| !n.pod_cidr.is_empty()) {
        tracing::info!(pod_cidr = network.pod_cidr, "the kubelet tells the node's pod CIDR");
    }
    wire::UpdateRuntimeConfigResponse {}
}
