//! StartContainer.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::StartContainerRequest,
) -> Result<wire::StartContainerResponse> {
    engine.start_container(&request.container_id).await?;
    Ok(wire::StartContainerResponse {})
}
