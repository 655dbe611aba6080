//! ImageHistory: the steps of an image, newest first.
use berth_engine::Engine;
use berth_model::Result;
use berth_proto::node as wire;

pub(crate) async fn call(engine: &Engine, request: wire::ImageHistoryRequest) -> Result<wire::ImageHistoryResponse> {
    let (id, steps) = engine.image_history(&request.name).await?;
    let steps = steps.into_iter().map(|step| wire::ImageStep {
        created: step.created,
        created_by: step.created_by,
        comment: step.comment,
        size: step.size,
        empty: step.empty,
    });
    Ok(wire::ImageHistoryResponse { steps: steps.collect(), image_id: id.to_string() })
}
