//! PullImage: progress as it comes, then the result.
use berth_engine::{Engine, PullSpec};
use berth_model::{PullProgress, PullStage};
use berth_proto::node::pull_image_event::Event;
use berth_proto::{node as wire, status};
use berth_registry::Auth;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

/// Events that may wait for a slow reader.
const BACKLOG: usize = 64;

pub(crate) fn call(engine: Arc<Engine>, request: wire::PullImageRequest) -> BoxStream<wire::PullImageEvent> {
    let (tell, events) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        tokio::select! {
            // The reader went away: nobody waits for this pull any more.
            () = tell.closed() => {}
            result = run(engine, request, &tell) => {
                let _ = tell.send(result).await;
            }
        }
    });
    Box::pin(ReceiverStream::new(events))
}

type Item = Result<wire::PullImageEvent, Status>;

async fn run(engine: Arc<Engine>, request: wire::PullImageRequest, tell: &mpsc::Sender<Item>) -> Item {
    let (progress, mut steps) = mpsc::channel(BACKLOG);
    let auth = match request.username.as_str() {
        "" => Auth::Anonymous,
        _ => Auth::Basic { username: request.username, password: request.password.into() },
    };
    let spec = PullSpec { reference: request.reference, auth, namespace: request.namespace, progress: Some(progress) };
    let forward = async {
        while let Some(step) = steps.recv().await {
            let _ = tell.send(Ok(event(Event::Progress(encode(step))))).await;
        }
    };
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

pub(crate) fn encode(step: PullProgress) -> wire::PullProgress {
    use wire::pull_progress::Stage;
    let stage = match step.stage {
        PullStage::Resolving => Stage::Resolving,
        PullStage::Downloading => Stage::Downloading,
        PullStage::Unpacking => Stage::Unpacking,
        PullStage::Done => Stage::Done,
        PullStage::Exists => Stage::Exists,
        PullStage::Uploading => Stage::Uploading,
    };
    wire::PullProgress { item: step.item, stage: stage as i32, current: step.current, total: step.total }
}
