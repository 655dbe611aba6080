//! Images of the node's own pods that the policies which Berth is handed deny: known before anything is changed, and not when these pods are
//! to run again.
//!
//! Owns: that, as far as no network and no daemon is needed (registries, tags, digests). Must not: refuse what the daemon would let run.
use super::{recorded, unfit};
use anyhow::{Result, anyhow};
use berth_adopt::Refusal;
use berth_adopt::plan::{Manifest, Pod, RevisionChange};
use berth_model::Reference;
use berth_trust::{PolicySet, Stage, Subject};
use std::collections::BTreeMap;

/// Least digits of an id that stand for it, as for the daemon (`node-runtime/crates/engine/src/verdict.rs`).
const MIN_ID: usize = 12;

/// One for each image of the static pods that the set denies. `before`: Berth's daemon runs already, and may have the images. Errors: the set
/// cannot be compiled, which whoever made the change has ruled out.
pub(in crate::adopt) fn denied(
    change: Option<&RevisionChange>,
    before: bool,
    pods: &[Pod],
    manifests: &[Manifest],
) -> Result<Vec<Refusal>> {
    let Some(policies) = change.and_then(|change| change.policies.as_ref()) else { return Ok(Vec::new()) };
    let revision = recorded(&policies.wanted)?;
    let documents = revision.settings().map_err(|e| anyhow!("{e}"))?.policies;
    let set = PolicySet::new(&documents).map_err(|e| anyhow!("{e}"))?;
    let running = pods.iter().filter(|pod| pod.is_static).map(|pod| (&pod.name.namespace, &pod.name.name, &pod.images));
    let all = running.chain(manifests.iter().map(|pod| (&pod.namespace, &pod.name, &pod.images)));
    let mut denied = BTreeMap::new();
    for (namespace, pod, images) in all {
        for image in images {
            if let Some(reasons) = reasons(&set, before, namespace, image) {
                denied.entry((namespace, image)).or_insert((pod, reasons));
            }
        }
    }
    let refusal = |((namespace, image), (pod, reasons)): ((&String, &String), (&String, String))| {
        unfit(&revision, &format!("it denies image {image} of the static pod {namespace}/{pod}: {reasons}"))
    };
    Ok(denied.into_iter().map(refusal).collect())
}

/// Why the daemon would not take an image in, which it decides for an unknown namespace as the adoption names none (`steps/images.rs`), or would
/// make no container of it.
fn reasons(set: &PolicySet, before: bool, namespace: &str, image: &str) -> Option<String> {
    // Where an image came from that is named by its id, the daemon knows.
    let short = image.trim_start_matches("sha256:");
    if short.len() >= MIN_ID && short.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let references = vec![Reference::parse(image).ok()?];
    let unknown = Subject { namespace: None, references, sources: Vec::new() };
    let of_pod = Subject { namespace: Some(namespace.to_owned()), ..unknown.clone() };
    let taken_in = (!before).then(|| set.evaluate(Stage::Pull, &unknown));
    let verdicts = [Some(set.evaluate(Stage::Create, &of_pod)), taken_in];
    let denial = verdicts.into_iter().flatten().find(|verdict| !verdict.permits())?;
    Some(denial.reasons.join("; "))
}
