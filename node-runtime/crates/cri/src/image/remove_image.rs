//! RemoveImage: all names go; idempotent.
use crate::decode::required;
use berth_engine::Engine;
use berth_model::Error;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::RemoveImageRequest) -> Result<wire::RemoveImageResponse> {
    let image = required("image", request.image)?;
    if image.image.is_empty() {
        return Err(Error::invalid("image.image", "must not be empty"));
    }
    engine.remove_image(&image.image).await?;
    Ok(wire::RemoveImageResponse {})
}
