//! PodSandboxStatus: from memory.
use crate::encode::{containers_statuses, info, pod_status};
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(
    engine: &Arc<Engine>,
    request: &wire::PodSandboxStatusRequest,
) -> Result<wire::PodSandboxStatusResponse> {
    // Read first: an event of a change that is in the answer may be younger than the answer says, never older.
    let timestamp = engine.now();
    let view = engine.pod(&request.pod_sandbox_id)?;
    let verbose = || serde_json::json!({ "pid": view.record.init_pid, "record": &*view.record });
    let info = if request.verbose { info(&verbose()) } else { Default::default() };
    // The timestamp goes only together with the containers' statuses (kubernetes#129818).
    Ok(wire::PodSandboxStatusResponse {
        status: Some(pod_status(&view)),
        info,
        containers_statuses: containers_statuses(&view),
        timestamp,
    })
}
