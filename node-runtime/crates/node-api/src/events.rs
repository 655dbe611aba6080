//! Events: the history from a time on, then what comes, until a time.
use berth_engine::{Engine, Happening, Happenings, Subject};
use berth_model::Result;
use berth_proto::{node as wire, status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::BoxStream;

/// Events that may wait for a slow reader; the engine keeps more.
const BACKLOG: usize = 64;

type Tell = mpsc::Sender<Result<wire::NodeEvent, Status>>;

pub(crate) fn call(engine: &Arc<Engine>, request: &wire::EventsRequest) -> Result<BoxStream<wire::NodeEvent>> {
    let happenings = engine.happenings()?;
    let until = (request.until > 0).then_some(request.until);
    let rest = until.map(|until| u64::try_from(until.saturating_sub(engine.now())).unwrap_or(0));
    let (since, now) = (request.since, engine.now());
    let (tell, events) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let since = if since > 0 { since } else { now };
        let wanted = move |h: &Happening| h.at >= since && until.is_none_or(|until| h.at <= until);
        let mut happenings = happenings;
        // The history is told in any case: it waits for the reader alone.
        for happening in std::mem::take(&mut happenings.kept) {
            if wanted(&happening) && tell.send(Ok(encode(&happening))).await.is_err() {
                return;
            }
        }
        let all = forward(happenings, wanted, tell.clone());
        match rest {
            Some(nanos) => tokio::select! {
                biased;
                () = all => {}
                () = tokio::time::sleep(Duration::from_nanos(nanos)) => {}
                () = tell.closed() => {}
            },
            None => tokio::select! {
                () = all => {}
                () = tell.closed() => {}
            },
        }
    });
    Ok(Box::pin(ReceiverStream::new(events)))
}

async fn forward(mut happenings: Happenings, wanted: impl Fn(&Happening) -> bool, tell: Tell) {
    while let Some(next) = happenings.next().await {
        let told = match next {
            Ok(happening) if wanted(&happening) => tell.send(Ok(encode(&happening))).await,
            Ok(_) => Ok(()),
            Err(e) => {
                let _ = tell.send(Err(status(e))).await;
                return;
            }
        };
        if told.is_err() {
            return;
        }
    }
}

fn encode(happening: &Happening) -> wire::NodeEvent {
    let subject = match happening.subject {
        Subject::Pod => "pod",
        Subject::Container => "container",
        Subject::Image => "image",
    };
    wire::NodeEvent {
        at: happening.at,
        r#type: subject.to_owned(),
        action: happening.action.to_owned(),
        id: happening.id.clone(),
        attributes: happening.attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    }
}
