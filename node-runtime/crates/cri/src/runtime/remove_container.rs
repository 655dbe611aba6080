//! RemoveContainer: idempotent.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::RemoveContainerRequest,
) -> Result<wire::RemoveContainerResponse> {
    engine.remove_container(&request.container_id).await?;
    Ok(wire::RemoveContainerResponse {})
}
