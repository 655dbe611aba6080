//! UpdateRuntimeConfig: tells the node's pod CIDR.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::UpdateRuntimeConfigRequest,
) -> Result<wire::UpdateRuntimeConfigResponse> {
    let network = request.runtime_config.and_then(|c| c.network_config);
    if let Some(network) = network.filter(|n| !n.pod_cidr.is_empty()) {
        engine.set_pod_cidr(&network.pod_cidr).await?;
    }
    Ok(wire::UpdateRuntimeConfigResponse {})
}
