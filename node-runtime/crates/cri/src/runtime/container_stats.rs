//! ContainerStats.
use crate::encode::container_stats;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::ContainerStatsRequest,
) -> Result<wire::ContainerStatsResponse> {
    let (view, stats) = engine.container_stats(&request.container_id).await?;
    Ok(wire::ContainerStatsResponse { stats: Some(container_stats(&view, &stats)) })
}
