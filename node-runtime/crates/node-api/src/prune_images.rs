//! PruneImages: unused images go.
use berth_engine::{Engine, Prune};
use berth_model::Result;
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::PruneImagesRequest) -> Result<wire::PruneImagesResponse> {
    let label = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.clone(), None),
    };
    let until = (request.until != 0).then_some(request.until);
    let [labels, without_labels] =
        [&request.labels, &request.without_labels].map(|texts| texts.iter().map(label).collect());
    let prune = Prune { all: request.all, until, labels, without_labels };
    let pruned = engine.prune_images(prune).await?;
    let deleted = pruned.deleted.iter().map(ToString::to_string).collect();
    Ok(wire::PruneImagesResponse { untagged: pruned.untagged, deleted, reclaimed_bytes: pruned.bytes })
}
