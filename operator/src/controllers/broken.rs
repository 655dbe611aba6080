//! Objects that only Berth or Kubernetes itself writes and that this version cannot parse: RuntimeRevisions, RuntimeNodes, Nodes. Nodes that they are
//! about keep what they have (`runtime_config/frozen.rs`); here it is told: by the log and an event once each, and by a metric.
//!
//! Must not: write to such an object. Whoever wrote it knows more of it.
use super::Context;
use super::status::{not_understood_because, reference_of};
use crate::cluster::writes::Kind;
use crate::cluster::{Broken, World};
use berth_crds::{RuntimeNode, RuntimeRevision};
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Most events of a kind in one pass, so that a fleet that a newer version wrote holds up no pass; the others have their turn in the next ones.
const EVENTS: usize = 20;

/// What was told already: kind, name and problem. Nobody could write that to the objects themselves.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<BTreeSet<(String, String, String)>>>);

impl Told {
    /// Those of a kind that have not been told, at most so many, and told from now on. What was mended is told again when it breaks again.
    fn next<'a>(&self, kind: &str, broken: &'a BTreeMap<String, Broken>) -> Vec<&'a Broken> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|(k, name, problem)| k != kind || broken.get(name).is_some_and(|b| b.error == *problem));
        let key = |b: &Broken| (kind.to_owned(), b.name.clone(), b.error.clone());
        let next: Vec<_> = broken.values().filter(|b| !told.contains(&key(b))).take(EVENTS).collect();
        told.extend(next.iter().map(|b| key(b)));
        next
    }
}

/// Tells of all.
pub async fn tell(context: &Context, world: &World) {
    of_kind::<RuntimeRevision>(context, &world.broken_revisions, "the nodes that have it or are to have it").await;
    of_kind::<RuntimeNode>(context, &world.broken_runtime_nodes, "its node").await;
    of_kind::<Node>(context, &world.broken_nodes, "it").await;
}

async fn of_kind<K: Kind>(context: &Context, broken: &BTreeMap<String, Broken>, frozen: &str) {
    let kind = K::kind(&());
    context.metrics.frozen(&kind, broken.len());
    for broken in context.told.next(&kind, broken) {
        let why = not_understood_because(broken);
        tracing::warn!(kind = kind.as_ref(), name = broken.name, problem = why, "an object is not understood");
        let note = format!("{why}; until then the operator leaves {frozen} alone");
        context.events.warning_of(&reference_of::<K>(broken), "NotUnderstood", note).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_until_it_is_another_problem_and_a_fleet_bit_by_bit() {
        let broken = |name: &str, error: &str| {
            let object = serde_json::Value::Null;
            (name.to_owned(), Broken { name: name.to_owned(), error: error.to_owned(), object })
        };
        let told = Told::default();
        let next = |all: &BTreeMap<String, Broken>| told.next("RuntimeNode", all).len();
        let mut all = BTreeMap::from([broken("a", "phase"), broken("b", "phase")]);
        assert_eq!((next(&all), next(&all)), (2, 0));
        all.extend([broken("b", "state")]);
        assert_eq!((next(&all), next(&all)), (1, 0));
        all.remove("a");
        assert_eq!(next(&all), 0);
        all.extend([broken("a", "phase")]);
        assert_eq!(next(&all), 1, "it was mended between");
        assert_eq!(told.next("RuntimeRevision", &all).len(), 2, "another kind");
        let fleet = (0..EVENTS + 5).map(|n| broken(&format!("n-{n}"), "phase")).collect();
        assert_eq!((next(&fleet), next(&fleet), next(&fleet)), (EVENTS, 5, 0));
    }
}
