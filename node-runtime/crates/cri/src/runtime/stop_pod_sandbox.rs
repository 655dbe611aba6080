//! StopPodSandbox: idempotent.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::StopPodSandboxRequest,
) -> Result<wire::StopPodSandboxResponse> {
    engine.stop_pod(&request.pod_sandbox_id).await?;
    Ok(wire::StopPodSandboxResponse {})
}
