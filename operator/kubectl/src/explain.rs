//! `kubectl berth explain node`: each effective field of a node, with its value and the RuntimeConfig that it comes from. It is read from the
//! node's revision, which has the source of every field beside its value.
use crate::cluster::Cluster;
use crate::output::{self, Format, table};
use anyhow::{Result, bail};
use berth_crds::{
    Audience, Preset, RevisionRuntime, RuntimeConfigSpec, RuntimeNode, RuntimeRevision, all_fields, changes,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

const DEFAULT: &str = "default";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    node: String,
    /// Of which the fields are.
    revision: String,
    /// Whether the node has it; it may be on its way to it.
    in_force: bool,
    runtime_version: String,
    /// Another one that the node is told to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_revision: Option<String>,
    /// What that changes, with the class of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<String>,
    fields: Vec<Field>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Field {
    field: String,
    value: Value,
    source: String,
}

/// Explains it.
pub async fn run(cluster: &Cluster, name: &str, set: bool, format: Option<Format>) -> Result<()> {
    let explained = explained(cluster, name, set).await?;
    if let Some(format) = format {
        return output::document(&explained, format);
    }
    let state = if explained.in_force { "in force" } else { "not in force yet" };
    let mut text = format!(
        "Node:       {name}\nRevision:   {} ({state})\nRuntime:    {}\n",
        explained.revision, explained.runtime_version
    );
    if let Some(desired) = &explained.desired_revision {
        text.push_str(&format!("On its way: {desired}\n"));
        explained.changes.iter().for_each(|change| text.push_str(&format!("  changes {change}\n")));
    }
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows: Vec<_> = explained.fields.iter().map(|f| [f.field.clone(), shown(&f.value), f.source.clone()]).collect();
    text.push('\n');
    text.push_str(&table(["FIELD", "VALUE", "SOURCE"], &rows));
    output::text(&text);
    Ok(())
}

async fn explained(cluster: &Cluster, name: &str, set: bool) -> Result<Explained> {
    let node: RuntimeNode = cluster.one(name, "`kubectl berth nodes` lists those that the operator has seen").await?;
    let current = node.status.as_ref().and_then(|s| s.current_revision.clone());
    let desired = node.spec.desired_revision.clone();
    let Some(shown) = current.clone().or_else(|| desired.clone()) else {
        bail!(
            "node {name} has no revision: no RuntimeConfig selects it, or its turn has not come; `kubectl berth status` says how far rollouts are"
        );
    };
    let remedy = "it was removed since; `kubectl get runtimerevisions` lists those that are there";
    let revision: RuntimeRevision = cluster.one(&shown, remedy).await?;
    let Some(runtime) = &revision.spec.runtime else { bail!("RuntimeRevision {shown} is no configuration") };
    let desired = desired.filter(|desired| *desired != shown);
    let mut differs = Vec::new();
    if let Some(desired) = &desired {
        let to: RuntimeRevision = cluster.one(desired, remedy).await?;
        if let (Ok(old), Ok(new)) = (revision.spec.config(), to.spec.config()) {
            differs = changes(&old, &new).into_iter().map(|c| format!("{} ({})", c.path, c.class)).collect();
        }
    }
    Ok(Explained {
        node: name.to_owned(),
        in_force: current.as_ref() == Some(&shown),
        revision: shown,
        runtime_version: runtime.version.clone(),
        desired_revision: desired,
        changes: differs,
        fields: fields(&revision.spec.config()?, runtime).into_iter().filter(|f| !set || f.source != DEFAULT).collect(),
    })
}

/// All fields that a node gets, in the order of the documents; a list or map that is merged by entries has a row for each.
fn fields(config: &RuntimeConfigSpec, runtime: &RevisionRuntime) -> Vec<Field> {
    let mut found = Vec::new();
    for field in all_fields().filter(|field| field.audience != Audience::Operator) {
        let source = |path: &str| runtime.sources.get(path).cloned();
        let entries = entries(field.path, &runtime.sources);
        match (field.set(config), entries.is_empty()) {
            (Some(Value::Array(list)), false) => found.extend(entries.iter().map(|(path, key, source)| Field {
                field: (*path).to_owned(),
                value: list.iter().find(|entry| is_of(entry, key)).cloned().unwrap_or_default(),
                source: (*source).to_owned(),
            })),
            (Some(Value::Object(map)), false) => found.extend(entries.iter().map(|(path, key, source)| Field {
                field: (*path).to_owned(),
                value: map.get(*key).cloned().unwrap_or_default(),
                source: (*source).to_owned(),
            })),
            (Some(value), _) => found.push(Field {
                field: field.path.to_owned(),
                value,
                source: source(field.path).unwrap_or_else(|| "the operator".to_owned()),
            }),
            (None, _) => {
                let value = match field.default {
                    Preset::Is(json) => serde_json::from_str(json).unwrap_or_default(),
                    Preset::Words(words) => Value::String(format!("({words})")),
                };
                found.push(Field { field: field.path.to_owned(), value, source: DEFAULT.to_owned() });
            }
        }
    }
    found
}

/// The entries of a list that have sources: path, key and source of each.
fn entries<'a>(path: &str, sources: &'a BTreeMap<String, String>) -> Vec<(&'a str, &'a str, &'a str)> {
    let of = |(entry, source): (&'a String, &'a String)| {
        let key = entry.strip_prefix(path)?.strip_prefix('[')?.strip_suffix(']')?;
        Some((entry.as_str(), key, source.as_str()))
    };
    sources.iter().filter_map(of).collect()
}

/// Whether an entry of a list has that key: a word itself, a registry's host, a credential's name, a profile's type and name.
fn is_of(entry: &Value, key: &str) -> bool {
    let word = |name: &str| entry[name].as_str().unwrap_or_default();
    let name =
        if entry["type"].is_null() { word("name").to_owned() } else { format!("{}/{}", word("type"), word("name")) };
    entry.as_str() == Some(key) || [word("host"), &name].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_is_found_by_its_key() {
        assert!(is_of(&json!({"name": "pull", "sha256": "0"}), "pull") && is_of(&json!("a:1"), "a:1"));
        assert!(is_of(&json!({"host": "r.example"}), "r.example"));
        let profile = json!({"type": "Seccomp", "name": "audit.json"});
        assert!(is_of(&profile, "Seccomp/audit.json") && !is_of(&profile, "audit.json"));
    }

    #[test]
    fn every_field_has_a_value_and_a_source() {
        let config = json!({"runtime": {"pidsLimit": 100}, "registries": [{"host": "a.example"}, {"host": "b.example"}],
            "profiles": [{"type": "Seccomp", "name": "p", "source": {"inline": "{}"}}]});
        let sources = [
            ("spec.runtime.pidsLimit", "base"),
            ("spec.registries[a.example]", "base"),
            ("spec.registries[b.example]", "team"),
            ("spec.profiles[Seccomp/p]", "team"),
        ];
        let sources = sources.map(|(path, source)| (path.to_owned(), source.to_owned())).into();
        let runtime = RevisionRuntime { version: "1".to_owned(), config: config.clone(), sources };
        let found = fields(&serde_json::from_value(config).unwrap(), &runtime);
        let of = |path: &str| found.iter().find(|f| f.field == path).unwrap_or_else(|| panic!("{path} in {found:?}"));
        assert_eq!(
            (&of("spec.runtime.pidsLimit").value, of("spec.runtime.pidsLimit").source.as_str()),
            (&json!(100), "base")
        );
        assert_eq!(of("spec.registries[b.example]").source, "team");
        assert_eq!(of("spec.registries[b.example]").value["host"], "b.example");
        assert_eq!(of("spec.profiles[Seccomp/p]").value["name"], "p");
        assert_eq!(of("spec.runtime.logLevel").source, DEFAULT);
        assert!(
            !found.iter().any(|f| f.field.starts_with("spec.rollout")),
            "what only the operator follows is not of a node"
        );
    }
}
