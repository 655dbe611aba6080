//! PreflightRevision, ApplyRevision, Revisions and ReleaseRevisions: what a cluster wants of this node.
use crate::config::change;
use crate::service::DaemonFacts;
use berth_engine::Engine;
use berth_model::{Error, Result};
use berth_proto::node as wire;
use berth_settings::{Change, Class, Revision, Revisions};
use std::time::Duration;

/// How long an answer waits for the daemon's parts: loading a profile is what takes longest.
const FOLLOWED: Duration = Duration::from_secs(15);

pub(crate) fn preflight(
    engine: &Engine,
    request: &wire::PreflightRevisionRequest,
) -> Result<wire::PreflightRevisionResponse> {
    let revision = Revision::parse(&request.name, &request.content)?;
    let changes = engine.standing().live().preflight(Revisions::of(revision.clone()))?;
    fits(engine, &revision)?;
    let changes = match revision.content.runtime {
        Some(_) => engine.weighed(changes, &revision.settings()?),
        None => changes,
    };
    let class = changes.iter().map(|change| change.class).max().unwrap_or(Class::Live).to_string();
    Ok(wire::PreflightRevisionResponse { changes: encode(changes), class })
}

pub(crate) async fn apply(engine: &Engine, request: wire::ApplyRevisionRequest) -> Result<wire::ApplyRevisionResponse> {
    let revision = Revision::parse(&request.name, &request.content)?;
    fits(engine, &revision)?;
    let live = engine.standing().live().clone();
    // It waits for the disk.
    let changes = tokio::task::spawn_blocking(move || live.apply(Revisions::of(revision))).await;
    let changes = changes.map_err(|e| Error::internal(e.to_string()))??;
    if !engine.standing().followed(FOLLOWED).await {
        tracing::warn!(revision = request.name, "parts of the daemon do not follow a revision yet");
    }
    tracing::info!(revision = request.name, changes = changes.len(), "a revision is applied");
    Ok(wire::ApplyRevisionResponse { changes: encode(changes), pending_restart: pending(engine) })
}

/// What only this node can say of it. Policies are nothing of that. Errors: those of the engine, and of a content that this version does not
/// know.
fn fits(engine: &Engine, revision: &Revision) -> Result<()> {
    if revision.content.runtime.is_some() { engine.check_driver(&revision.settings()?) } else { Ok(()) }
}

/// May read a small file.
pub(crate) fn applied(engine: &Engine, facts: &DaemonFacts) -> wire::RevisionsResponse {
    let live = engine.standing().live().clone();
    let applied = live.applied();
    let drift = live.drift().map(|d| wire::FileDrift { path: d.path.display().to_string(), kind: d.kind.to_owned() });
    let held = facts.credentials.names().into_iter().map(|(name, sha256)| wire::CredentialName { name, sha256 });
    let decisions = engine.policy_counts().into_iter().map(|(policy, count)| wire::PolicyDecisions {
        policy,
        denied: count.denied,
        warned: count.warned,
    });
    let name = |revision: Option<Revision>| revision.map(|r| r.name).unwrap_or_default();
    wire::RevisionsResponse {
        configuration: name(applied.configuration),
        policies: name(applied.policies),
        pending_restart: pending(engine),
        problems: engine.standing().problems().into_iter().collect(),
        drift: drift.into_iter().collect(),
        decisions: decisions.collect(),
        credentials: held.collect(),
        failed_start: live
            .failed_start()
            .map(|failed| wire::FailedStart { revision: failed.revision, problem: failed.problem }),
    }
}

pub(crate) async fn release(
    engine: &Engine,
    request: wire::ReleaseRevisionsRequest,
) -> Result<wire::ReleaseRevisionsResponse> {
    let live = engine.standing().live().clone();
    let (configuration_only, policies_only) = (request.configuration_only, request.policies_only);
    let release = move || match (configuration_only, policies_only) {
        (true, true) => {
            Err(Error::invalid("configuration_only, policies_only", "are both set: leave both out to forget all"))
        }
        (true, false) => live.release_configuration(),
        (false, true) => live.release_policies(),
        (false, false) => live.release(),
    };
    let changes = tokio::task::spawn_blocking(release).await;
    let changes = changes.map_err(|e| Error::internal(e.to_string()))??;
    tracing::info!(changes = changes.len(), configuration_only, policies_only, "the cluster's revisions are forgotten");
    Ok(wire::ReleaseRevisionsResponse { changes: encode(changes) })
}

fn encode(changes: Vec<Change>) -> Vec<wire::ConfigChange> {
    changes.into_iter().map(change).collect()
}

fn pending(engine: &Engine) -> Vec<String> {
    engine.standing().pending().into_iter().map(|change| change.field).collect()
}
