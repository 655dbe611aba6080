//! PullImage: progress as it comes, then the result.
use crate::progress::{BACKLOG, Tell, auth, forward, stream};
use berth_engine::{Engine, PullSpec};
use berth_proto::node::pull_image_event::Event;
use berth_proto::{node as wire, status};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::BoxStream;

pub(crate) fn call(engine: Arc<Engine>, request: wire::PullImageRequest) -> BoxStream<wire::PullImageEvent> {
    stream(|tell| run(engine, request, tell))
}

async fn run(
    engine: Arc<Engine>,
    request: wire::PullImageRequest,
    tell: Tell<wire::PullImageEvent>,
) -> Result<wire::PullImageEvent, Status> {
    let (progress, steps) = mpsc::channel(BACKLOG);
    let auth = auth(request.username, request.password);
    let wire::PullImageRequest { reference, namespace, platform, .. } = request;
    let spec = PullSpec { reference, platform, auth, namespace, progress: Some(progress) };
    let forward = forward(steps, &tell, |step| event(Event::Progress(step)));
    let (pulled, ()) = tokio::join!(engine.pull(spec), forward);
    let pulled = pulled.map_err(status)?;
    Ok(event(Event::Result(wire::PullResult {
        image_id: pulled.image.id.to_string(),
        digest: pulled.image.manifest_digest.to_string(),
        warnings: pulled.warnings,
    })))
}

fn event(event: Event) -> wire::PullImageEvent {
    wire::PullImageEvent { event: Some(event) }
}
