//! GiveCredentials: a cluster's credentials, which are in memory only. Nothing of the request is logged.
use crate::service::DaemonFacts;
use berth_engine::Engine;
use berth_model::{Error, Result};
use berth_proto::node as wire;
use berth_settings::sha256;

pub(crate) fn call(
    engine: &Engine,
    facts: &DaemonFacts,
    request: wire::GiveCredentialsRequest,
) -> Result<wire::GiveCredentialsResponse> {
    let mut new = Vec::new();
    for credential in request.credentials {
        if sha256(&credential.content) != credential.sha256 {
            let problem = "has another SHA-256 than was said";
            return Err(Error::invalid(format!("credential {}", credential.name), problem));
        }
        new.push((credential.name, credential.sha256, credential.content));
    }
    let count = new.len();
    let settings = engine.settings();
    let named = |name: &str, sha256: &str| {
        settings.spec.credentials.from_secret.iter().any(|wanted| wanted.name == name && wanted.sha256 == sha256)
    };
    facts.credentials.take(new, named)?;
    tracing::info!(count, "credentials were handed over");
    Ok(wire::GiveCredentialsResponse {})
}
