//! PushImage: progress as it goes, then the result.
use crate::progress::{BACKLOG, Tell, auth, forward, stream};
use berth_engine::{Engine, PushSpec};
use berth_proto::node::push_image_event::Event;
use berth_proto::{node as wire, status};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::BoxStream;

pub(crate) fn call(engine: Arc<Engine>, request: wire::PushImageRequest) -> BoxStream<wire::PushImageEvent> {
    stream(|tell| run(engine, request, tell))
}

async fn run(
    engine: Arc<Engine>,
    request: wire::PushImageRequest,
    tell: Tell<wire::PushImageEvent>,
) -> Result<wire::PushImageEvent, Status> {
    let (progress, steps) = mpsc::channel(BACKLOG);
    let auth = auth(request.username, request.password);
    let spec = PushSpec { image: request.image, target: request.target, auth, progress: Some(progress) };
    let forward = forward(steps, &tell, |step| event(Event::Progress(step)));
    let (pushed, ()) = tokio::join!(engine.push_image(spec), forward);
    let (target, outcome) = pushed.map_err(status)?;
    let [existed, mounted, uploaded] = outcome.blobs.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok(event(Event::Result(wire::PushImageResult {
        target: target.to_string(),
        digest: outcome.digest.to_string(),
        size: outcome.size,
        index: outcome.index,
        existed,
        mounted,
        uploaded,
        sent_bytes: outcome.sent,
    })))
}

fn event(event: Event) -> wire::PushImageEvent {
    wire::PushImageEvent { event: Some(event) }
}
