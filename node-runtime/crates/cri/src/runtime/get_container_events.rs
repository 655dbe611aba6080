//! GetContainerEvents: an endless stream. A client that is too slow is told so and has to list again; it holds up nobody.
use crate::encode::event;
use berth_engine::{Engine, Subscription};
use berth_model::{Error, ErrorKind, Result};
use berth_proto::{cri as wire, status};
use futures_util::stream;
use std::sync::Arc;
use tonic::codegen::BoxStream;

pub(crate) fn call(engine: &Arc<Engine>) -> Result<BoxStream<wire::ContainerEventResponse>> {
    let events = engine.events()?;
    Ok(Box::pin(stream::unfold(Some(events), next)))
}

/// After an error there is nothing more.
async fn next(
    events: Option<Subscription>,
) -> Option<(std::result::Result<wire::ContainerEventResponse, tonic::Status>, Option<Subscription>)> {
    let mut events = events?;
    match events.next().await {
        Some(Ok(told)) => Some((Ok(event(&told)), Some(events))),
        Some(Err(e)) => Some((Err(status(e)), None)),
        None => {
            let ends = Error::new(ErrorKind::Unavailable, "the daemon ends; subscribe anew and list");
            Some((Err(status(ends)), None))
        }
    }
}
