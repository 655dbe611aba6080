//! ImportImages: an archive's bytes in, progress out, then the result. An input that ends without its `end` is a client that went
//! away: nothing of it is taken in.
use crate::progress::{BACKLOG, Tell, forward, stream};
use berth_engine::{Engine, ImportSpec};
use berth_model::{Error, ErrorKind};
use berth_proto::node::import_images_event::Event;
use berth_proto::node::import_images_input::Input;
use berth_proto::{node as wire, status};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

/// Chunks on their way to the store.
const CHUNKS: usize = 8;

pub(crate) async fn call(
    engine: Arc<Engine>,
    mut inputs: Streaming<wire::ImportImagesInput>,
) -> Result<BoxStream<wire::ImportImagesEvent>, Status> {
    let start = match inputs.message().await?.and_then(|i| i.input) {
        Some(Input::Start(start)) => start,
        _ => return Err(Status::invalid_argument("start: must come first")),
    };
    Ok(stream(|tell| run(engine, start, inputs, tell)))
}

async fn run(
    engine: Arc<Engine>,
    start: wire::ImportImagesStart,
    inputs: Streaming<wire::ImportImagesInput>,
    tell: Tell<wire::ImportImagesEvent>,
) -> Result<wire::ImportImagesEvent, Status> {
    let (sender, archive) = mpsc::channel(CHUNKS);
    let (progress, steps) = mpsc::channel(BACKLOG);
    let wire::ImportImagesStart { name, namespace, platform } = start;
    let spec = ImportSpec { archive, name, platform, namespace, progress: Some(progress) };
    let forward = forward(steps, &tell, |step| wire::ImportImagesEvent { event: Some(Event::Progress(step)) });
    let (imported, (), ()) = tokio::join!(engine.import_images(spec), forward, feed(inputs, sender));
    imported.map(result).map_err(status)
}

/// Hands the archive's bytes on, until their end or until nobody takes them.
async fn feed(mut inputs: Streaming<wire::ImportImagesInput>, sender: mpsc::Sender<berth_model::Result<Bytes>>) {
    loop {
        let chunk = match inputs.message().await.map(|input| input.and_then(|i| i.input)) {
            Ok(Some(Input::Data(data))) => Ok(Bytes::from(data)),
            Ok(Some(Input::End(_))) => return,
            Ok(Some(Input::Start(_))) => Err(Error::invalid("start", "must come once")),
            Ok(None) | Err(_) => Err(Error::new(ErrorKind::Unavailable, "the client went away within the archive")),
        };
        let ended = chunk.is_err();
        if sender.send(chunk).await.is_err() || ended {
            return;
        }
    }
}

fn result(imported: berth_engine::Imported) -> wire::ImportImagesEvent {
    let images = imported.images.iter().map(|(image, names)| wire::ImportedImage {
        image_id: image.id.to_string(),
        names: names.iter().map(ToString::to_string).collect(),
        digest: image.manifest_digest.to_string(),
    });
    let result = wire::ImportImagesResult { images: images.collect(), warnings: imported.warnings };
    wire::ImportImagesEvent { event: Some(Event::Result(result)) }
}
