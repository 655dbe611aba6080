//! ListContainerStats: running containers; one that ends meanwhile is left out.
use crate::decode::stats_filter;
use crate::encode::container_stats;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::ListContainerStatsRequest,
) -> Result<wire::ListContainerStatsResponse> {
    let stats = engine.list_container_stats(&stats_filter(request.filter)).await?;
    Ok(wire::ListContainerStatsResponse {
        stats: stats.iter().map(|(view, stats)| container_stats(view, stats)).collect(),
    })
}
