//! ListPodSandboxStats and StreamPodSandboxStats: pods that are READY.
use crate::decode::pod_stats_filter;
use crate::encode::pod_stats;
use crate::stream::chunks;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::ListPodSandboxStatsRequest,
) -> Result<wire::ListPodSandboxStatsResponse> {
    Ok(wire::ListPodSandboxStatsResponse { stats: list(engine, request.filter).await? })
}

pub(crate) async fn stream(
    engine: &Arc<Engine>,
    request: wire::StreamPodSandboxStatsRequest,
) -> Result<BoxStream<wire::StreamPodSandboxStatsResponse>> {
    let list = list(engine, request.filter).await?;
    Ok(chunks(list, |pod_sandbox_stats| wire::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
}

async fn list(engine: &Arc<Engine>, filter: Option<wire::PodSandboxStatsFilter>) -> Result<Vec<wire::PodSandboxStats>> {
    Ok(engine.list_pod_stats(&pod_stats_filter(filter)).await?.iter().map(pod_stats).collect())
}
