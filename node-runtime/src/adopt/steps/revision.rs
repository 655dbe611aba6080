//! The revisions that Berth's daemon is handed before it has the node: as a part of the step `daemon`, and of its undo.
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
use berth_settings::{FormerPolicies, Revision, Revisions};
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
    let configuration = recorded(&change.wanted)?;
    let policies = change.policies.as_ref().map(|policies| recorded(&policies.wanted)).transpose()?;
    if node.plan.install.daemon_before {
        // What they forbid must not come in with the other one.
        if let Some(policies) = &policies {
            apply(node.layout, policies).await?;
        }
        return apply(node.layout, &configuration).await;
    }
    let name = configuration.name.clone();
    let handed = Revisions { configuration: Some(configuration), policies };
    berth_settings::hand_over(&wire::accepted(node.layout), handed).with_context(|| format!("RuntimeRevision {name}"))
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
    if let Some(policies) = change.policies.as_ref().filter(|policies| policies.wanted.name != told.policies) {
        bail!("Berth's daemon has {:?} and not {}, which it was handed", told.policies, policies.wanted.name);
    }
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
    let policies = former_policies(change, node.plan.install.daemon_before)?;
    if node.plan.install.daemon_before && connect::node(node.layout).await.is_ok() {
        return have_again(node.layout, change, former.as_ref(), policies).await;
    }
    let taken = berth_settings::take_back(&wire::accepted(node.layout), former, policies);
    taken.with_context(|| format!("RuntimeRevision {}", change.wanted.name))
}

/// Policies that were not handed over are none of an adoption's business, but where nobody had any before.
fn former_policies(change: &RevisionChange, daemon_before: bool) -> Result<FormerPolicies> {
    Ok(match &change.policies {
        Some(policies) => FormerPolicies::Are(policies.former.as_ref().map(recorded).transpose()?),
        None if daemon_before || change.policies_before => FormerPolicies::Stay,
        None => FormerPolicies::Are(None),
    })
}

/// A daemon that goes on is told. Policies that somebody has had it apply since stay.
async fn have_again(
    layout: &Layout,
    change: &RevisionChange,
    configuration: Option<&Revision>,
    policies: FormerPolicies,
) -> Result<()> {
    let mut berth = connect::node(layout).await?;
    let told = within("Revisions", berth.revisions(RevisionsRequest {})).await?.policies;
    let ours = change.policies.as_ref().is_some_and(|policies| policies.wanted.name == told);
    for word in again(ours, configuration, &policies) {
        match word {
            Again::Has(revision) => apply(layout, revision).await?,
            Again::Forgets(request) => drop(within("ReleaseRevisions", berth.release_revisions(request)).await?),
        }
    }
    Ok(())
}

/// One thing that a daemon that goes on is told, so that it has again what it had.
#[derive(Debug, PartialEq)]
enum Again<'a> {
    /// To apply a revision.
    Has(&'a Revision),
    /// To forget all, or revisions of one kind.
    Forgets(ReleaseRevisionsRequest),
}

/// What it is told, in this order: at no moment it has less than before, or less than it was handed. `ours`: the policies in force are those
/// that were handed over.
fn again<'a>(ours: bool, configuration: Option<&'a Revision>, policies: &'a FormerPolicies) -> Vec<Again<'a>> {
    let forgets = |configuration_only, policies_only| {
        Again::Forgets(ReleaseRevisionsRequest { configuration_only, policies_only })
    };
    let gone = ours && *policies == FormerPolicies::Are(None);
    let former = match policies {
        FormerPolicies::Are(former) => former.as_ref().filter(|_| ours),
        FormerPolicies::Stay => None,
    };
    match configuration {
        None if gone => vec![forgets(false, false)],
        None => [forgets(true, false)].into_iter().chain(former.map(Again::Has)).collect(),
        // A daemon of a version that knows nothing of policies alone forgets both.
        Some(has) if gone => vec![Again::Has(has), forgets(false, true), Again::Has(has)],
        Some(has) => [Some(has), former].into_iter().flatten().map(Again::Has).collect(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revision(name: &str) -> Revision {
        Revision { name: name.to_owned(), content: serde_json::from_value(json!({"policies": []})).unwrap() }
    }

    #[test]
    fn a_daemon_that_goes_on_has_again_what_it_had_and_keeps_what_others_gave_it() {
        let (config, set) = (revision("config-0"), revision("policy-0"));
        let (stay, none) = (FormerPolicies::Stay, FormerPolicies::Are(None));
        let former = FormerPolicies::Are(Some(set.clone()));
        let all = || Again::Forgets(ReleaseRevisionsRequest::default());
        let alone = || Again::Forgets(ReleaseRevisionsRequest { configuration_only: true, policies_only: false });
        let (configured, enforced) = (|| Again::Has(&config), || Again::Has(&set));
        let policies_alone = Again::Forgets(ReleaseRevisionsRequest { configuration_only: false, policies_only: true });
        let cases = [
            // Those that were handed over are in force, and go; the configuration is there all the time.
            (true, None, &none, vec![all()]),
            (true, Some(&config), &none, vec![configured(), policies_alone, configured()]),
            (true, None, &former, vec![alone(), enforced()]),
            (true, Some(&config), &former, vec![configured(), enforced()]),
            // Somebody has given it others since.
            (false, None, &none, vec![alone()]),
            (false, Some(&config), &none, vec![configured()]),
            (false, None, &former, vec![alone()]),
            (false, Some(&config), &former, vec![configured()]),
            // None were handed over.
            (false, None, &stay, vec![alone()]),
            (false, Some(&config), &stay, vec![configured()]),
        ];
        for (ours, configuration, policies, told) in cases {
            let case = format!("{ours} {configuration:?} {policies:?}");
            assert_eq!(again(ours, configuration, policies), told, "{case}");
        }
    }

    #[test]
    fn policies_that_were_not_handed_over_are_left_to_whoever_gave_them() {
        let planned = |name: &str| berth_adopt::plan::Revision { name: name.to_owned(), content: json!({}) };
        let change = |policies_before| RevisionChange {
            wanted: planned("config-1"),
            former: None,
            policies_before,
            policies: None,
        };
        assert_eq!(former_policies(&change(true), false).unwrap(), FormerPolicies::Stay);
        assert_eq!(former_policies(&change(false), true).unwrap(), FormerPolicies::Stay);
        assert_eq!(former_policies(&change(false), false).unwrap(), FormerPolicies::Are(None), "nobody had any");
    }
}
