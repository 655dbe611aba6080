//! ListContainerStats and StreamContainerStats: running containers; one that ends meanwhile is left out.
use crate::decode::stats_filter;
use crate::encode::container_stats;
use crate::stream::chunks;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::ListContainerStatsRequest,
) -> Result<wire::ListContainerStatsResponse> {
    Ok(wire::ListContainerStatsResponse { stats: list(engine, request.filter).await? })
}

pub(crate) async fn stream(
    engine: &Arc<Engine>,
    request: wire::StreamContainerStatsRequest,
) -> Result<BoxStream<wire::StreamContainerStatsResponse>> {
    let list = list(engine, request.filter).await?;
    Ok(chunks(list, |container_stats| wire::StreamContainerStatsResponse { container_stats }))
}

async fn list(engine: &Arc<Engine>, filter: Option<wire::ContainerStatsFilter>) -> Result<Vec<wire::ContainerStats>> {
    let stats = engine.list_container_stats(&stats_filter(filter)).await?;
    Ok(stats.iter().map(|(view, stats)| container_stats(view, stats)).collect())
}
