//! Kill.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: &wire::KillRequest) -> Result<wire::KillResponse> {
    engine.signal_container(&request.container_id, &request.signal).await?;
    Ok(wire::KillResponse {})
}
