//! PushImage: progress as it goes, then the result.
use crate::pull::encode;
use berth_engine::{Engine, PushSpec};
use berth_proto::node::push_image_event::Event;
use berth_proto::{node as wire, status};
use berth_registry::Auth;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

/// Events that may wait for a slow reader.
const BACKLOG: usize = 64;

pub(crate) fn call(engine: Arc<Engine>, request: wire::PushImageRequest) -> BoxStream<wire::PushImageEvent> {
    let (tell, events) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        tokio::select! {
            // The reader went away: nobody waits for this push any more.
            () = tell.closed() => {}
            result = run(engine, request, &tell) => {
                let _ = tell.send(result).await;
            }
        }
    });
    Box::pin(ReceiverStream::new(events))
}

type Item = Result<wire::PushImageEvent, Status>;

async fn run(engine: Arc<Engine>, request: wire::PushImageRequest, tell: &mpsc::Sender<Item>) -> Item {
    let (progress, mut steps) = mpsc::channel(BACKLOG);
    let auth = match request.username.as_str() {
        "" => Auth::Anonymous,
        _ => Auth::Basic { username: request.username, password: request.password.into() },
    };
    let spec = PushSpec { image: request.image, target: request.target, auth, progress: Some(progress) };
    let forward = async {
        while let Some(step) = steps.recv().await {
            let _ = tell.send(Ok(event(Event::Progress(encode(step))))).await;
        }
    };
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
