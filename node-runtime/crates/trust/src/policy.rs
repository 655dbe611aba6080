//! Policies compiled from documents, and the verdict.
use crate::check;
use crate::pattern::{Pattern, Scope};
use berth_crds::{EnforcePoint, ImagePolicy, NamespaceSelector, PolicyMode, SelectorOperator};
use berth_model::{Reference, Result, ResultExt};

/// Where a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before an image is fetched.
    Pull,
    /// Before a container is made.
    Create,
}

/// What is decided about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Namespace of the pod; `None` is unknown, and every selector matches.
    pub namespace: Option<String>,
    /// References that the user wrote: each must pass. None when the image was named by its id.
    pub references: Vec<Reference>,
    /// Where the image on the node came from: one must pass. None before a pull.
    pub sources: Vec<Reference>,
}

/// The weight of a verdict, lightest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every policy passes.
    Allow,
    /// A policy in mode Audit fails.
    Audit,
    /// A policy in mode Warn fails.
    Warn,
    /// A policy in mode Enforce fails.
    Deny,
}

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The heaviest of all.
    pub outcome: Outcome,
    /// One sentence per policy that fails with that weight, each naming the policy.
    pub reasons: Vec<String>,
    /// The names of those policies, in the same order.
    pub policies: Vec<String>,
}

impl Verdict {
    /// Whether the image may be used.
    pub fn permits(&self) -> bool {
        self.outcome != Outcome::Deny
    }
}

/// All policies of a node, compiled.
#[derive(Debug, Default)]
pub struct PolicySet(Vec<Policy>);

#[derive(Debug)]
struct Policy {
    name: String,
    mode: PolicyMode,
    points: Vec<EnforcePoint>,
    images: Vec<Pattern>,
    exclude: Vec<Pattern>,
    namespaces: Option<NamespaceSelector>,
    allow: Vec<Scope>,
    deny: Vec<Scope>,
    require_digest: bool,
    forbid_tags: Vec<String>,
}

impl PolicySet {
    /// Compiles. Errors: `InvalidArgument` naming policy, field and what is wrong with the pattern.
    pub fn new(documents: &[ImagePolicy]) -> Result<Self> {
        documents.iter().map(Policy::new).collect::<Result<_>>().map(Self)
    }

    /// Decides.
    pub fn evaluate(&self, stage: Stage, subject: &Subject) -> Verdict {
        let mut verdict = Verdict { outcome: Outcome::Allow, reasons: Vec::new(), policies: Vec::new() };
        for policy in self.0.iter().filter(|p| p.concerns(stage, subject)) {
            let Err(reason) = policy.check(subject) else { continue };
            let outcome = match policy.mode {
                PolicyMode::Audit => Outcome::Audit,
                PolicyMode::Warn => Outcome::Warn,
                PolicyMode::Enforce => Outcome::Deny,
            };
            if outcome > verdict.outcome {
                verdict = Verdict { outcome, reasons: Vec::new(), policies: Vec::new() };
            }
            if outcome == verdict.outcome {
                verdict.reasons.push(format!("ImagePolicy {}: {reason}", policy.name));
                verdict.policies.push(policy.name.clone());
            }
        }
        verdict
    }
}

impl Policy {
    fn new(document: &ImagePolicy) -> Result<Self> {
        let name = &document.metadata.name;
        let spec = &document.spec;
        let at = |field: &str| format!("ImagePolicy {name}: spec.{field}");
        let patterns = |field: &str, list: &[berth_crds::ImagePattern]| -> Result<Vec<Pattern>> {
            list.iter().map(|p| Pattern::parse(&p.pattern).context(|| at(field))).collect()
        };
        let scopes = |field: &str, list: &[String]| -> Result<Vec<Scope>> {
            list.iter().map(|s| Scope::parse(s).context(|| at(field))).collect()
        };
        Ok(Self {
            name: name.clone(),
            mode: spec.mode,
            points: spec.enforce_at.clone(),
            images: patterns("match.images", &spec.matches.images)?,
            exclude: patterns("match.exclude", &spec.matches.exclude)?,
            namespaces: spec.matches.namespace_selector.clone(),
            allow: scopes("registries.allow", &spec.registries.allow)?,
            deny: scopes("registries.deny", &spec.registries.deny)?,
            require_digest: spec.references.require_digest,
            forbid_tags: spec.references.forbid_tags.clone(),
        })
    }

    fn concerns(&self, stage: Stage, subject: &Subject) -> bool {
        let point = match stage {
            Stage::Pull => EnforcePoint::Pull,
            Stage::Create => EnforcePoint::Create,
        };
        let namespace = match (&self.namespaces, &subject.namespace) {
            (Some(selector), Some(namespace)) => selects(selector, namespace),
            _ => true,
        };
        self.points.contains(&point) && namespace
    }

    fn means(&self, reference: &Reference) -> bool {
        (self.images.is_empty() || self.images.iter().any(|p| p.matches(reference)))
            && !self.exclude.iter().any(|p| p.matches(reference))
    }

    fn check(&self, subject: &Subject) -> Result<(), String> {
        for reference in subject.references.iter().filter(|r| self.means(r)) {
            check::registry(&self.allow, &self.deny, reference)?;
            check::form(self.require_digest, &self.forbid_tags, reference)?;
        }
        self.check_sources(subject)
    }

    /// One recorded source must pass. An image named by id without any source comes from nowhere: an allow list refuses it.
    fn check_sources(&self, subject: &Subject) -> Result<(), String> {
        let mut refusal = None;
        for source in &subject.sources {
            match if self.means(source) { check::registry(&self.allow, &self.deny, source) } else { Ok(()) } {
                Ok(()) => return Ok(()),
                Err(reason) => refusal = refusal.or(Some(format!("the image came from elsewhere: {reason}"))),
            }
        }
        if subject.references.is_empty() && subject.sources.is_empty() && !self.allow.is_empty() {
            refusal = Some("the image has no recorded source, so no allowed registry".to_owned());
        }
        refusal.map_or(Ok(()), Err)
    }
}

fn selects(selector: &NamespaceSelector, namespace: &str) -> bool {
    selector.match_labels.values().all(|v| v == namespace)
        && selector.match_expressions.iter().all(|e| {
            let listed = e.values.iter().any(|v| v == namespace);
            match e.operator {
                SelectorOperator::In => listed,
                SelectorOperator::NotIn => !listed,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{Document, parse_documents};
    use proptest::prelude::*;

    fn policy(name: &str, spec: &str) -> ImagePolicy {
        let text =
            format!("apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n");
        let Some(Document::ImagePolicy(document)) = parse_documents(&text).unwrap().pop() else { panic!("one policy") };
        *document
    }

    fn subject(written: &str, sources: &[&str]) -> Subject {
        let parse = |text: &&str| Reference::parse(text).unwrap();
        let references = if written.is_empty() { vec![] } else { vec![parse(&written)] };
        Subject { namespace: Some("shop".into()), references, sources: sources.iter().map(parse).collect() }
    }

    fn outcome(spec: &str, stage: Stage, subject: &Subject) -> Outcome {
        PolicySet::new(&[policy("p", spec)]).unwrap().evaluate(stage, subject).outcome
    }

    #[test]
    fn each_rule_refuses_what_it_is_about() {
        let digest = format!("good.io/app@sha256:{}", "a".repeat(64));
        let cases = [
            ("{mode: Enforce, registries: {deny: [bad.io]}}", "bad.io/app", Outcome::Deny),
            ("{mode: Enforce, registries: {deny: [bad.io]}}", "good.io/app", Outcome::Allow),
            ("{mode: Enforce, registries: {allow: [good.io/team]}}", "good.io/team/app", Outcome::Allow),
            ("{mode: Enforce, registries: {allow: [good.io/team]}}", "good.io/app", Outcome::Deny),
            ("{mode: Enforce, registries: {allow: [bad.io], deny: [bad.io]}}", "bad.io/app", Outcome::Deny),
            ("{mode: Enforce, references: {requireDigest: true}}", "good.io/app:v1", Outcome::Deny),
            ("{mode: Enforce, references: {requireDigest: true}}", &digest, Outcome::Allow),
            ("{mode: Enforce, references: {forbidTags: [latest]}}", "good.io/app", Outcome::Deny),
            ("{mode: Warn, references: {forbidTags: [latest]}}", "good.io/app", Outcome::Warn),
            ("{mode: Audit, references: {forbidTags: [latest]}}", "good.io/app", Outcome::Audit),
            ("{mode: Enforce, enforceAt: [Create], registries: {deny: [bad.io]}}", "bad.io/app", Outcome::Allow),
            (
                "{mode: Enforce, match: {images: [{pattern: bad.io/x}]}, registries: {deny: [bad.io]}}",
                "bad.io/y",
                Outcome::Allow,
            ),
            (
                "{mode: Enforce, match: {exclude: [{pattern: bad.io/y}]}, registries: {deny: [bad.io]}}",
                "bad.io/y",
                Outcome::Allow,
            ),
        ];
        for (spec, image, expected) in cases {
            assert_eq!(outcome(spec, Stage::Pull, &subject(image, &[])), expected, "{spec} on {image}");
        }
    }

    #[test]
    fn an_image_by_id_is_judged_by_where_it_came_from() {
        let spec = "{mode: Enforce, registries: {allow: [good.io]}}";
        assert_eq!(outcome(spec, Stage::Create, &subject("", &["bad.io/app"])), Outcome::Deny);
        assert_eq!(outcome(spec, Stage::Create, &subject("", &["bad.io/app", "good.io/app"])), Outcome::Allow);
        assert_eq!(outcome(spec, Stage::Create, &subject("", &[])), Outcome::Deny, "no source at all");
        assert_eq!(
            outcome(spec, Stage::Create, &subject("good.io/app", &["bad.io/app"])),
            Outcome::Deny,
            "a good name on an image that came from elsewhere"
        );
    }

    #[test]
    fn an_unknown_namespace_gets_the_strictest_set() {
        let name = "kubernetes.io/metadata.name";
        let spec = format!(
            "{{mode: Enforce, match: {{namespaceSelector: {{matchLabels: {{{name}: prod}}}}}}, registries: {{deny: [bad.io]}}}}"
        );
        let mut who = subject("bad.io/app", &[]);
        assert_eq!(outcome(&spec, Stage::Pull, &who), Outcome::Allow, "namespace shop is not meant");
        who.namespace = Some("prod".into());
        assert_eq!(outcome(&spec, Stage::Pull, &who), Outcome::Deny);
        who.namespace = None;
        assert_eq!(outcome(&spec, Stage::Pull, &who), Outcome::Deny);
    }

    #[test]
    fn reasons_name_the_policy_and_the_remedy() {
        let set = PolicySet::new(&[policy("pinned", "{mode: Enforce, references: {requireDigest: true}}")]).unwrap();
        let verdict = set.evaluate(Stage::Pull, &subject("good.io/app:v1", &[]));
        assert_eq!(verdict.reasons, ["ImagePolicy pinned: good.io/app:v1 has no digest; write good.io/app@sha256:..."]);
    }

    const SPECS: [&str; 5] = [
        "{mode: Enforce, registries: {deny: [bad.io]}}",
        "{mode: Enforce, registries: {allow: [good.io]}}",
        "{mode: Warn, references: {requireDigest: true}}",
        "{mode: Enforce, references: {forbidTags: [latest]}, match: {images: [{pattern: '*.io/app'}]}}",
        "{mode: Audit, registries: {deny: ['*']}}",
    ];

    proptest! {
        #[test]
        fn adding_a_policy_never_loosens(some in proptest::collection::vec(0..SPECS.len(), 0..4), more in 0..SPECS.len(),
                                         image in "(good|bad)\\.io/(app|x)(:v1|:latest)?") {
            let documents: Vec<_> = some.iter().chain([&more]).enumerate()
                .map(|(i, s)| policy(&format!("p{i}"), SPECS[*s])).collect();
            let who = subject(&image, &[]);
            let before = PolicySet::new(&documents[..documents.len() - 1]).unwrap().evaluate(Stage::Pull, &who);
            let after = PolicySet::new(&documents).unwrap().evaluate(Stage::Pull, &who);
            prop_assert!(after.outcome >= before.outcome);
        }
    }
}
