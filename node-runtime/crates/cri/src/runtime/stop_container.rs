//! StopContainer: idempotent; the timeout is the grace period in seconds.
use berth_engine::Engine;
use berth_model::Error;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn call(
    engine: &Arc<Engine>,
    request: wire::StopContainerRequest,
) -> Result<wire::StopContainerResponse> {
    let seconds = u64::try_from(request.timeout).map_err(|_| Error::invalid("timeout", "must not be negative"))?;
    engine.stop_container(&request.container_id, Duration::from_secs(seconds)).await?;
    Ok(wire::StopContainerResponse {})
}
