//! PullImage: the answer is the image id, the same string as everywhere (cri-contract 1.4).
use crate::decode::required;
use berth_engine::{Engine, PullSpec};
use berth_model::{Error, Reference, Result};
use berth_proto::cri as wire;
use berth_registry::{Auth, Credentials};
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::PullImageRequest) -> Result<wire::PullImageResponse> {
    let image = required("image", request.image)?;
    if image.image.is_empty() {
        return Err(Error::invalid("image.image", "must not be empty"));
    }
    let metadata = request.sandbox_config.and_then(|c| c.metadata);
    let spec = PullSpec {
        auth: auth(request.auth, Reference::parse(&image.image)?.host())?,
        reference: image.image,
        platform: String::new(),
        namespace: metadata.map(|m| m.namespace).unwrap_or_default(),
        progress: None,
    };
    let outcome = engine.pull(spec).await?;
    Ok(wire::PullImageResponse { image_ref: outcome.image.id.to_string() })
}

fn auth(config: Option<wire::AuthConfig>, host: &str) -> Result<Auth> {
    let Some(config) = config else { return Ok(Auth::Anonymous) };
    let fields = Credentials {
        username: &config.username,
        password: &config.password,
        auth: &config.auth,
        server_address: &config.server_address,
        identity_token: &config.identity_token,
        registry_token: &config.registry_token,
    };
    Auth::from_cri(&fields, host)
}
