//! Answers that come as events: how far the work is, then its result. For pull, push and import.
use berth_model::{PullProgress, PullStage};
use berth_proto::node as wire;
use berth_registry::Auth;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

/// Events that may wait for a slow reader.
pub(crate) const BACKLOG: usize = 64;

/// Where a call's events go.
pub(crate) type Tell<E> = Sender<Result<E, Status>>;

/// Streams what the work tells, and its result. When the reader goes away nobody waits for the work any more, and it is dropped.
pub(crate) fn stream<E, F>(work: impl FnOnce(Tell<E>) -> F) -> BoxStream<E>
where
    E: Send + 'static,
    F: Future<Output = Result<E, Status>> + Send + 'static,
{
    let (tell, events) = mpsc::channel(BACKLOG);
    let work = work(tell.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = tell.closed() => {}
            result = work => {
                let _ = tell.send(result).await;
            }
        }
    });
    Box::pin(ReceiverStream::new(events))
}

/// Tells each step, until whoever makes them is through.
pub(crate) async fn forward<E>(
    mut steps: Receiver<PullProgress>,
    tell: &Tell<E>,
    event: impl Fn(wire::PullProgress) -> E,
) {
    while let Some(step) = steps.recv().await {
        let _ = tell.send(Ok(event(encode(step)))).await;
    }
}

/// The credentials of a request; without a user there are none.
pub(crate) fn auth(username: String, password: String) -> Auth {
    match username.as_str() {
        "" => Auth::Anonymous,
        _ => Auth::Basic { username, password: password.into() },
    }
}

fn encode(step: PullProgress) -> wire::PullProgress {
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
