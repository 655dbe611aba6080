//! ListImages and StreamImages: from memory.
use crate::encode::image;
use crate::stream::chunks;
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) fn call(engine: &Arc<Engine>, request: wire::ListImagesRequest) -> Result<wire::ListImagesResponse> {
    Ok(wire::ListImagesResponse { images: list(engine, request.filter)? })
}

pub(crate) fn stream(
    engine: &Arc<Engine>,
    request: wire::StreamImagesRequest,
) -> Result<BoxStream<wire::StreamImagesResponse>> {
    Ok(chunks(list(engine, request.filter)?, |images| wire::StreamImagesResponse { images }))
}

fn list(engine: &Arc<Engine>, filter: Option<wire::ImageFilter>) -> Result<Vec<wire::Image>> {
    let wanted = filter.and_then(|f| f.image).map(|i| i.image).filter(|i| !i.is_empty());
    let images = match wanted {
        Some(name) => engine.image(&name)?.into_iter().collect(),
        None => engine.images(),
    };
    Ok(images.iter().map(|i| image(i)).collect())
}
