//! TagImage: a further name.
use berth_engine::Engine;
use berth_model::{Reference, Result};
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::TagImageRequest) -> Result<wire::TagImageResponse> {
    let image = engine.tag_image(&request.image, &request.name).await?;
    Ok(wire::TagImageResponse { name: Reference::parse(&request.name)?.to_string(), image_id: image.id.to_string() })
}
