//! ListPodSandbox: from memory.
use crate::decode::pod_filter;
use crate::encode::pod;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ListPodSandboxRequest) -> Result<wire::ListPodSandboxResponse> {
    let filter = pod_filter(request.filter)?;
    Ok(wire::ListPodSandboxResponse { items: engine.pods(&filter).iter().map(pod).collect() })
}
