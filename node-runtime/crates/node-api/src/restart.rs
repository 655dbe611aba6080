//! Restart.
use berth_engine::Engine;
use berth_model::{Error, Result};
use berth_proto::node as wire;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn call(engine: &Arc<Engine>, request: &wire::RestartRequest) -> Result<wire::RestartResponse> {
    let grace = u64::try_from(request.grace).map_err(|_| Error::invalid("grace", "must not be negative"))?;
    let id = engine.restart_container(&request.container_id, Duration::from_secs(grace)).await?;
    Ok(wire::RestartResponse { container_id: id.to_string() })
}
