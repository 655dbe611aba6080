//! `berth config show`.
use super::config;
use crate::commands::output::{self, Document};
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{ConfigChange, ConfigResponse};
use serde_json::{Map, Value, json};

/// How to show it.
#[derive(clap::Args)]
#[command(
    after_long_help = "Shows every setting that has a value, defaults included, as one RuntimeConfig would say it, and the policies.
Secrets are redacted. A change that waits for the daemon's next start stands under pendingRestart."
)]
pub struct Options {
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "yaml")]
    output: Document,
}

/// Shows it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    output::document(&document(&config(layout).await?), options.output)
}

fn document(config: &ConfigResponse) -> Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let mut document = Map::new();
    for field in config.fields.iter().filter(|f| !f.value.is_empty()) {
        put(&mut document, &field.path, parsed(&field.value));
    }
    let policies = config.policies.iter().map(|p| json!({ "name": p.name, "spec": parsed(&p.spec) }));
    document.insert("imagePolicies".into(), policies.collect());
    document.insert("documents".into(), json!(config.documents));
    let change = |c: &ConfigChange| json!({ "field": c.field, "running": parsed(&c.old), "wanted": parsed(&c.new) });
    let told = [
        ("refusedDocuments", (!config.refused.is_empty()).then(|| json!(config.refused))),
        ("pendingRestart", (!config.pending.is_empty()).then(|| config.pending.iter().map(change).collect())),
        ("problems", (!config.problems.is_empty()).then(|| json!(config.problems))),
    ];
    document.extend(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Value::Object(document)
}

/// Puts a value at a path, with the objects above it.
fn put(document: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(document.insert(path.to_owned(), value)),
        Some((name, rest)) => {
            let inner = document.entry(name).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::ConfigField;

    #[test]
    fn fields_become_one_document() {
        let field =
            |path: &str, value: &str| ConfigField { path: path.into(), value: value.into(), ..Default::default() };
        let fields = vec![field("spec.a.b", "1"), field("spec.a.c", "\"x\""), field("spec.none", "")];
        let pending = vec![ConfigChange { field: "spec.a.b".into(), new: "1".into(), ..Default::default() }];
        let shown = document(&ConfigResponse { fields, pending, ..Default::default() });
        assert_eq!(shown["spec"], json!({"a": {"b": 1, "c": "x"}}));
        assert_eq!(shown["pendingRestart"][0], json!({"field": "spec.a.b", "running": null, "wanted": 1}));
        assert!(shown.get("refusedDocuments").is_none());
    }
}
