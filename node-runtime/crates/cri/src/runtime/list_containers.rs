//! ListContainers and StreamContainers: from memory.
use crate::decode::container_filter;
use crate::encode::container;
use crate::stream::chunks;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ListContainersRequest) -> Result<wire::ListContainersResponse> {
    Ok(wire::ListContainersResponse { containers: list(engine, request.filter)? })
}

pub(crate) fn stream(
    engine: &Arc<Engine>,
    request: wire::StreamContainersRequest,
) -> Result<BoxStream<wire::StreamContainersResponse>> {
    let list = list(engine, request.filter)?;
    Ok(chunks(list, |containers| wire::StreamContainersResponse { containers }))
}

fn list(engine: &Arc<Engine>, filter: Option<wire::ContainerFilter>) -> Result<Vec<wire::Container>> {
    Ok(engine.containers(&container_filter(filter)?).iter().map(container).collect())
}
