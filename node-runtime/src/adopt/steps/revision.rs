//! The revision that Berth's daemon is handed before it has the node: as a part of the step `daemon`, and of its undo.
//!
//! Owns: that, on the disk where no daemon runs, by its socket where one does. Must not: judge what a revision says.
use super::Node;
use crate::adopt::revision::recorded;
use crate::commands::connect::{self, said};
use crate::layout::Layout;
use crate::serve::wire;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::Plan;
use berth_adopt::plan::RevisionChange;
use berth_proto::node::{ApplyRevisionRequest, ReleaseRevisionsRequest, RevisionsRequest};
use berth_settings::Revision;
use std::future::Future;
use std::time::Duration;
use tonic::{Response, Status};

/// How long a call to the daemon may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Room in bytes that what was applied before may need to be there again: two files, each with two revisions of the largest size.
const ROOM: u64 = 4 << 20;

/// Room in bytes that taking it back may need; where nothing was applied before, files go.
pub(super) fn room(plan: &Plan) -> u64 {
    let restores = |change: &RevisionChange| change.former.is_some() || change.policies_before;
    if plan.revision.as_ref().is_some_and(restores) { ROOM } else { 0 }
}

/// Before the daemon starts: it will start with it. One that ran before has it from now on.
pub(super) async fn hand_over(node: &Node<'_>) -> Result<()> {
    let Some(change) = &node.plan.revision else { return Ok(()) };
    let revision = recorded(&change.wanted)?;
    if node.plan.install.daemon_before {
        return apply(node.layout, &revision).await;
    }
    let name = revision.name.clone();
    berth_settings::hand_over(&wire::accepted(node.layout), revision).with_context(|| format!("RuntimeRevision {name}"))
}

/// `started` is how the daemon's start went. Errors: it did not start with the revision, and why; a daemon that does not starts without it.
pub(super) async fn in_force(node: &Node<'_>, started: Result<()>) -> Result<()> {
    let Some(change) = &node.plan.revision else { return started };
    let name = &change.wanted.name;
    let why = || berth_settings::failed_start(&wire::accepted(node.layout)).filter(|failed| failed.revision == *name);
    if let Err(e) = started {
        let e = e.context(format!("Berth's daemon, which was handed {name}"));
        return Err(why().map_or(e, |failed| does_not_start(name, &failed.problem)));
    }
    let mut berth = connect::node(node.layout).await?;
    let told = within("Revisions", berth.revisions(RevisionsRequest {})).await?;
    if told.configuration == *name {
        return Ok(());
    }
    if let Some(failed) = why() {
        return Err(does_not_start(name, &failed.problem));
    }
    bail!("Berth's daemon has {:?} and not {name}, which it was handed", told.configuration)
}

fn does_not_start(name: &str, problem: &str) -> anyhow::Error {
    anyhow!("Berth's daemon does not start with {name}: {problem}")
}

/// What was there before is there again. It may be called again.
pub(super) async fn take_back(node: &Node<'_>) -> Result<()> {
    let Some(change) = &node.plan.revision else { return Ok(()) };
    let former = change.former.as_ref().map(recorded).transpose()?;
    let ran = node.plan.install.daemon_before;
    if ran && let Ok(mut berth) = connect::node(node.layout).await {
        return match &former {
            Some(former) => apply(node.layout, former).await,
            None => {
                let request = ReleaseRevisionsRequest { configuration_only: true };
                within("ReleaseRevisions", berth.release_revisions(request)).await.map(drop)
            }
        };
    }
    // Policies of a daemon that goes on are none of an adoption's business.
    let policies_stay = ran || change.policies_before;
    let taken = berth_settings::take_back(&wire::accepted(node.layout), former, policies_stay);
    taken.with_context(|| format!("RuntimeRevision {}", change.wanted.name))
}

async fn apply(layout: &Layout, revision: &Revision) -> Result<()> {
    let content = serde_json::to_string(&revision.content)?;
    let request = ApplyRevisionRequest { name: revision.name.clone(), content };
    let mut berth = connect::node(layout).await?;
    within("ApplyRevision", berth.apply_revision(request)).await.map(drop)
}

async fn within<T>(what: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(said(status)).with_context(|| what.to_owned()),
        Err(_) => bail!("{what}: no answer within {} s", LIMIT.as_secs()),
    }
}
