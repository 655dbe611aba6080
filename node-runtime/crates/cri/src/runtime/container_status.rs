//! ContainerStatus: from memory.
use crate::encode::{container_status, info};
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(
    engine: &Arc<Engine>,
    request: &wire::ContainerStatusRequest,
) -> Result<wire::ContainerStatusResponse> {
    let view = engine.container(&request.container_id)?;
    let verbose = || serde_json::json!({ "sandboxID": view.pod, "pid": view.record.pid(), "record": &view.record });
    let info = if request.verbose { info(&verbose()) } else { Default::default() };
    Ok(wire::ContainerStatusResponse { status: Some(container_status(&view)), info })
}
