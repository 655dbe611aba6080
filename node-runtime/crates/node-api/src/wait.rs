//! Wait: until a container has ended, or its client goes away.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: &wire::WaitRequest) -> Result<wire::WaitResponse> {
    let status = engine.wait_container(&request.container_id).await?;
    Ok(wire::WaitResponse { exit_code: status.code, reason: status.reason.as_str().to_owned() })
}
