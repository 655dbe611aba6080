//! PodSandboxStats: also of a pod in which nothing runs.
use crate::encode::pod_stats;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::PodSandboxStatsRequest,
) -> Result<wire::PodSandboxStatsResponse> {
    let reading = engine.pod_stats(&request.pod_sandbox_id).await?;
    Ok(wire::PodSandboxStatsResponse { stats: Some(pod_stats(&reading)) })
}
