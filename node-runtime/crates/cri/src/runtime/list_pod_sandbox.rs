//! ListPodSandbox and StreamPodSandboxes: from memory.
use crate::decode::pod_filter;
use crate::encode::pod;
use crate::stream::chunks;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ListPodSandboxRequest) -> Result<wire::ListPodSandboxResponse> {
    Ok(wire::ListPodSandboxResponse { items: list(engine, request.filter)? })
}

pub(crate) fn stream(
    engine: &Arc<Engine>,
    request: wire::StreamPodSandboxesRequest,
) -> Result<BoxStream<wire::StreamPodSandboxesResponse>> {
    let list = list(engine, request.filter)?;
    Ok(chunks(list, |pod_sandboxes| wire::StreamPodSandboxesResponse { pod_sandboxes }))
}

fn list(engine: &Arc<Engine>, filter: Option<wire::PodSandboxFilter>) -> Result<Vec<wire::PodSandbox>> {
    Ok(engine.pods(&pod_filter(filter)?).iter().map(pod).collect())
}
