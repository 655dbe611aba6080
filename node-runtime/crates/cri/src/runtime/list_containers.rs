//! ListContainers: from memory.
use crate::decode::container_filter;
use crate::encode::container;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ListContainersRequest) -> Result<wire::ListContainersResponse> {
    let filter = container_filter(request.filter)?;
    Ok(wire::ListContainersResponse { containers: engine.containers(&filter).iter().map(container).collect() })
}
