//! ListImages: from memory.
use crate::encode::image;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ListImagesRequest) -> Result<wire::ListImagesResponse> {
    let wanted = request.filter.and_then(|f| f.image).map(|i| i.image).filter(|i| !i.is_empty());
    let images = match wanted {
        Some(name) => engine.image(&name)?.into_iter().collect(),
        None => engine.images(),
    };
    Ok(wire::ListImagesResponse { images: images.iter().map(|i| image(i)).collect() })
}
