//! ImageStatus: an image that is not here is no error, but nothing.
use crate::decode::required;
use crate::encode::{image, info};
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ImageStatusRequest) -> Result<wire::ImageStatusResponse> {
    let spec = required("image", request.image)?;
    let Some(found) = engine.image(&spec.image)? else { return Ok(wire::ImageStatusResponse::default()) };
    let verbose = || serde_json::json!({ "record": &*found });
    let info = if request.verbose { info(&verbose()) } else { Default::default() };
    Ok(wire::ImageStatusResponse { image: Some(image(&found)), info })
}
