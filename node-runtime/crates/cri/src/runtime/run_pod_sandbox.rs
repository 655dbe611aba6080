//! RunPodSandbox.
use crate::decode::pod_config;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::RunPodSandboxRequest,
) -> Result<wire::RunPodSandboxResponse> {
    let config = pod_config(request.config, request.runtime_handler)?;
    let id = engine.run_pod(config).await?;
    Ok(wire::RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
}
