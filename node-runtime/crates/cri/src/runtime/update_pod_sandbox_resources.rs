//! UpdatePodSandboxResources: taken note of.
use crate::decode::update;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::UpdatePodSandboxResourcesRequest,
) -> Result<wire::UpdatePodSandboxResourcesResponse> {
    let overhead = request.overhead.map(|r| update("overhead", r)).transpose()?;
    let resources = request.resources.map(|r| update("resources", r)).transpose()?;
    engine.update_pod(&request.pod_sandbox_id, overhead, resources).await?;
    Ok(wire::UpdatePodSandboxResourcesResponse {})
}
