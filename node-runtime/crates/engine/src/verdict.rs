//! Image policy at work: evidence in, verdict out, counted. The decision itself is the crate `trust`, pure.
use crate::context::Engine;
use berth_images::{Evidence, ImageRecord};
use berth_model::{Error, ErrorKind, Reference, Result};
use berth_settings::Settings;
use berth_trust::{Outcome, PolicySet, Subject, Verdict};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where in an image's life a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Pull,
    Create,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Create => "create",
        }
    }

    fn point(self) -> berth_trust::Stage {
        match self {
            Self::Pull => berth_trust::Stage::Pull,
            Self::Create => berth_trust::Stage::Create,
        }
    }
}

/// The compiled policies of the settings that were in force last, and what was decided by them.
#[derive(Default)]
pub(crate) struct PolicyCache {
    set: Mutex<Option<(Arc<Settings>, Arc<PolicySet>)>>,
    counts: Mutex<BTreeMap<String, PolicyCount>>,
}

/// What was decided by one policy since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyCount {
    /// Images refused.
    pub denied: u64,
    /// Images warned of.
    pub warned: u64,
}

impl PolicyCache {
    fn get(&self, settings: &Arc<Settings>) -> Result<Arc<PolicySet>> {
        let mut cached = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, set)) = &*cached
            && Arc::ptr_eq(of, settings)
        {
            return Ok(set.clone());
        }
        let set = Arc::new(PolicySet::new(&settings.policies)?);
        *cached = Some((settings.clone(), set.clone()));
        Ok(set)
    }

    fn count(&self, verdict: &Verdict) {
        if !matches!(verdict.outcome, Outcome::Warn | Outcome::Deny) {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for policy in &verdict.policies {
            let count = counts.entry(policy.clone()).or_default();
            let which = if verdict.outcome == Outcome::Deny { &mut count.denied } else { &mut count.warned };
            *which = which.saturating_add(1);
        }
    }
}

impl Engine {
    /// Decides about a reference before anything is fetched. Returns warnings. Errors: `PolicyDenied`.
    pub(crate) fn decide_reference(&self, namespace: &str, reference: &Reference) -> Result<Vec<String>> {
        let set = self.policy.get(&self.settings())?;
        let subject = Subject { namespace: known(namespace), references: vec![reference.clone()], sources: Vec::new() };
        self.judge(Stage::Pull, &reference.to_string(), set.evaluate(Stage::Pull.point(), &subject))
    }

    /// Decides about an image on the node, for the reference that the user wrote. By id, a recorded source must pass too.
    pub(crate) fn decide(
        &self,
        stage: Stage,
        namespace: &str,
        written: &str,
        image: &ImageRecord,
    ) -> Result<Vec<String>> {
        let set = self.policy.get(&self.settings())?;
        let references = written_references(written, image);
        let subject = Subject { namespace: known(namespace), references, sources: sources(&image.evidence) };
        self.judge(stage, written, set.evaluate(stage.point(), &subject))
    }

    /// What the policies say, without counting or refusing: for people who ask.
    pub fn check_image(&self, namespace: &str, reference: &str) -> Result<Verdict> {
        let reference = Reference::parse(reference)?;
        let set = self.policy.get(&self.settings())?;
        let subject = Subject { namespace: known(namespace), references: vec![reference], sources: Vec::new() };
        Ok(set.evaluate(berth_trust::Stage::Pull, &subject))
    }

    /// What was decided by each policy in force, by name. Policies that are in force no more are forgotten.
    pub fn policy_counts(&self) -> BTreeMap<String, PolicyCount> {
        let settings = self.settings();
        let mut counts = self.policy.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|name, _| settings.policies.iter().any(|policy| policy.metadata.name == *name));
        counts.clone()
    }

    fn judge(&self, stage: Stage, what: &str, verdict: Verdict) -> Result<Vec<String>> {
        let label = match verdict.outcome {
            Outcome::Allow => "allow",
            Outcome::Audit => "audit",
            Outcome::Warn => "warn",
            Outcome::Deny => "deny",
        };
        self.metrics.decision(stage.label(), label);
        self.policy.count(&verdict);
        match verdict.outcome {
            Outcome::Allow => Ok(Vec::new()),
            Outcome::Audit => {
                tracing::info!(image = what, reasons = ?verdict.reasons, "image policy would deny this (mode Audit)");
                Ok(Vec::new())
            }
            Outcome::Warn => {
                tracing::warn!(image = what, reasons = ?verdict.reasons, "image policy would deny this (mode Warn)");
                Ok(verdict.reasons)
            }
            Outcome::Deny => {
                let problem = format!("image {what} is denied: {}", verdict.reasons.join("; "));
                Err(Error::new(ErrorKind::PolicyDenied, problem))
            }
        }
    }
}

/// An empty namespace is unknown: the strictest set applies.
fn known(namespace: &str) -> Option<String> {
    (!namespace.is_empty()).then(|| namespace.to_owned())
}

/// Least digits of an id that stand for it (images/src/state.rs).
const MIN_ID: usize = 12;

/// The reference as the user wrote it; an id names none, and then where the image came from decides alone.
fn written_references(written: &str, image: &ImageRecord) -> Vec<Reference> {
    // As images are found by the beginning of an id: less of it is a name.
    let short = written.trim_start_matches("sha256:");
    let is_id = written == image.id.as_str() || (short.len() >= MIN_ID && image.id.hex().starts_with(short));
    if is_id {
        return Vec::new();
    }
    Reference::parse(written).into_iter().collect()
}

fn sources(evidence: &Evidence) -> Vec<Reference> {
    evidence.sources.iter().map(|s| s.reference.clone()).collect()
}
