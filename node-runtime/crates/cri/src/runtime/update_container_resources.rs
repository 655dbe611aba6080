//! UpdateContainerResources: all or nothing.
use crate::decode::{required, update};
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::UpdateContainerResourcesRequest,
) -> Result<wire::UpdateContainerResourcesResponse> {
    let resources = update("linux", required("linux", request.linux)?)?;
    engine.update_container(&request.container_id, resources).await?;
    Ok(wire::UpdateContainerResourcesResponse {})
}
