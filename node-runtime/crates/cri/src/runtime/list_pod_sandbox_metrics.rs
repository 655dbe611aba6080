//! ListPodSandboxMetrics and StreamPodSandboxMetrics: pods that are READY.
use crate::encode::pod_metrics;
use crate::stream::chunks;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) async fn call(engine: &Arc<Engine>) -> Result<wire::ListPodSandboxMetricsResponse> {
    Ok(wire::ListPodSandboxMetricsResponse { pod_metrics: list(engine).await? })
}

pub(crate) async fn stream(engine: &Arc<Engine>) -> Result<BoxStream<wire::StreamPodSandboxMetricsResponse>> {
    let list = list(engine).await?;
    Ok(chunks(list, |pod_sandbox_metrics| wire::StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
}

async fn list(engine: &Arc<Engine>) -> Result<Vec<wire::PodSandboxMetrics>> {
    Ok(engine.pod_metrics().await?.iter().map(pod_metrics).collect())
}
