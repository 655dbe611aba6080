//! ImageReferrers: what refers to an image on its registry.
use crate::progress::auth;
use berth_engine::Engine;
use berth_model::{Reference, Result};
use berth_proto::node as wire;

pub(crate) async fn call(
    engine: &Engine,
    request: wire::ImageReferrersRequest,
) -> Result<wire::ImageReferrersResponse> {
    let reference = Reference::parse(&request.reference)?;
    let found = engine.image_referrers(&reference, &auth(request.username, request.password)).await?;
    let referrers = found.list.into_iter().map(|one| wire::ImageReferrer {
        digest: one.digest.to_string(),
        subject: one.subject.to_string(),
        media_type: one.media_type,
        artifact_type: one.artifact_type,
        size: one.size,
        annotations: one.annotations.into_iter().collect(),
        found_by: one.by.as_str().to_owned(),
    });
    Ok(wire::ImageReferrersResponse {
        subject: found.subject.to_string(),
        referrers: referrers.collect(),
        refused: found.refused,
    })
}
