//! Whether each RuntimeConfig may count. Pure. One that may not freezes the nodes that it selects: they keep what they have.
use crate::cluster::World;
use berth_crds::{API_VERSION, Document, LabelSelector, ObjectMeta, RuntimeConfig, RuntimeConfigSpec};
use std::collections::BTreeMap;

/// What a RuntimeConfig is.
#[derive(Debug, Clone)]
pub enum Judgement {
    /// Good.
    Good(Box<RuntimeConfig>),
    /// Not, and why. Without a selector that can be read it may be about any node.
    Frozen {
        /// As one word.
        reason: &'static str,
        /// As a sentence.
        message: String,
        /// Whom it freezes; `None` is everybody.
        selector: Option<LabelSelector>,
    },
}

/// All of them, by name.
pub(super) fn judge(world: &World) -> BTreeMap<String, Judgement> {
    let parsed = world.configs.iter().map(|(name, object)| {
        let judgement = match check(name, &object.spec) {
            Ok(document) => Judgement::Good(document),
            // Whom it is about is known, and without a selector it is nobody.
            Err(message) => Judgement::Frozen {
                reason: "Invalid",
                message,
                selector: Some(object.spec.node_selector.clone().unwrap_or_else(nobody)),
            },
        };
        (name.clone(), judgement)
    });
    let broken = world.broken_configs.iter().map(|broken| {
        let selector = match &broken.object["spec"]["nodeSelector"] {
            serde_json::Value::Null => Some(nobody()),
            value => serde_json::from_value(value.clone()).ok(),
        };
        let message =
            format!("this version does not understand it, and leaves its nodes as they are: {}", broken.error);
        (broken.name.clone(), Judgement::Frozen { reason: "NotUnderstood", message, selector })
    });
    parsed.chain(broken).collect()
}

/// A spec as a document, by the rules that a node goes by. Errors: what is wrong with it.
pub(super) fn check(name: &str, spec: &RuntimeConfigSpec) -> Result<Box<RuntimeConfig>, String> {
    let document = Box::new(RuntimeConfig {
        api_version: API_VERSION.to_owned(),
        kind: "RuntimeConfig".to_owned(),
        metadata: ObjectMeta { name: name.to_owned(), ..Default::default() },
        spec: spec.clone(),
    });
    let checked = berth_crds::check(&Document::RuntimeConfig(document.clone()));
    checked.map_err(|e| e.message().to_owned()).map(|()| document)
}

/// A selector that no node fulfils.
fn nobody() -> LabelSelector {
    let requirement =
        |operator| berth_crds::LabelRequirement { key: "berth.dev/nobody".to_owned(), operator, values: Vec::new() };
    let both = [berth_crds::LabelOperator::Exists, berth_crds::LabelOperator::DoesNotExist];
    LabelSelector { match_expressions: both.map(requirement).to_vec(), ..Default::default() }
}
