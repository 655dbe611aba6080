//! CreateContainer.
use crate::decode::container_config;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::CreateContainerRequest,
) -> Result<wire::CreateContainerResponse> {
    let config = container_config(request.config)?;
    let id = engine.create_container(&request.pod_sandbox_id, config).await?;
    Ok(wire::CreateContainerResponse { container_id: id.to_string() })
}
