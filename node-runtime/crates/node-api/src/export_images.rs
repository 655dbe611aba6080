//! ExportImages: an archive's bytes.
use berth_engine::Engine;
use berth_proto::{node as wire, status};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

pub(crate) async fn call(
    engine: &Engine,
    request: wire::ExportImagesRequest,
) -> Result<BoxStream<wire::ExportImagesChunk>, Status> {
    if request.names.is_empty() {
        return Err(Status::invalid_argument("names: must not be empty"));
    }
    let chunks = engine.export_images(&request.names).await.map_err(status)?;
    let chunk = |chunk: berth_model::Result<bytes::Bytes>| match chunk {
        Ok(data) => Ok(wire::ExportImagesChunk { data: data.into() }),
        Err(e) => Err(status(e)),
    };
    Ok(Box::pin(ReceiverStream::new(chunks).map(chunk)))
}
