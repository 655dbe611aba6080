//! UntagImage: a name goes, and the image with its last one.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::UntagImageRequest) -> Result<wire::UntagImageResponse> {
    let removed = engine.untag_image(&request.name, request.force).await?;
    let deleted = removed.deleted.iter().map(ToString::to_string).collect();
    Ok(wire::UntagImageResponse { untagged: removed.untagged, deleted })
}
