//! `kubectl berth explain node`: each effective field of a node, with its value and the RuntimeConfig that it comes from. It is read from the
//! node's revision, whose status has the sources of every field: of several RuntimeConfigs that come to the same, those count that select the node.
use crate::cluster::Cluster;
use crate::output::{self, Format, table};
use anyhow::{Result, bail};
use berth_crds::{
    Audience, Preset, RuntimeConfigObject, RuntimeConfigSpec, RuntimeNode, RuntimeRevision, all_fields, changes,
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DEFAULT: &str = "default";

/// Path of each field that is set to the names of the RuntimeConfigs that it comes from.
type Sources = BTreeMap<String, Vec<String>>;

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
    let mut sources = revision.status.as_ref().map(|s| s.sources.clone()).unwrap_or_default();
    if sources.values().any(|names| names.len() > 1) {
        narrow(&mut sources, &selecting(cluster, name).await);
    }
    Ok(Explained {
        node: name.to_owned(),
        in_force: current.as_ref() == Some(&shown),
        revision: shown,
        runtime_version: runtime.version.clone(),
        desired_revision: desired,
        changes: differs,
        fields: fields(&revision.spec.config()?, &sources)
            .into_iter()
            .filter(|f| !set || f.source != DEFAULT)
            .collect(),
    })
}

/// Names of the RuntimeConfigs that select a node now. None, where whoever asks may not read the Node or them.
async fn selecting(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let (Some(labels), Ok(configs)) = (cluster.labels(node).await, cluster.all::<RuntimeConfigObject>().await) else {
        return BTreeSet::new();
    };
    // One that is not understood selects nobody that is known.
    let configs = configs.iter().filter_map(|listed| listed.object.as_ref().ok());
    let selects = |c: &&RuntimeConfigObject| c.spec.node_selector.as_ref().is_some_and(|s| s.matches(&labels));
    configs.filter(selects).map(ResourceExt::name_any).collect()
}

/// Leaves of the names of each field those that select the node; all, where none of them does.
fn narrow(sources: &mut Sources, selecting: &BTreeSet<String>) {
    for names in sources.values_mut().filter(|names| names.iter().any(|name| selecting.contains(name))) {
        names.retain(|name| selecting.contains(name));
    }
}

/// All fields that a node gets, in the order of the documents; a list or map that is merged by entries has a row for each.
fn fields(config: &RuntimeConfigSpec, sources: &Sources) -> Vec<Field> {
    let mut found = Vec::new();
    for field in all_fields().filter(|field| field.audience != Audience::Operator) {
        let source = |path: &str| sources.get(path).map(|names| names.join(", "));
        let entries = entries(field.path, sources);
        match (field.set(config), entries.is_empty()) {
            (Some(Value::Array(list)), false) => found.extend(entries.iter().map(|(path, key, source)| Field {
                field: (*path).to_owned(),
                value: list.iter().find(|entry| is_of(entry, key)).cloned().unwrap_or_default(),
                source: source.clone(),
            })),
            (Some(Value::Object(map)), false) => found.extend(entries.iter().map(|(path, key, source)| Field {
                field: (*path).to_owned(),
                value: map.get(*key).cloned().unwrap_or_default(),
                source: source.clone(),
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
fn entries<'a>(path: &str, sources: &'a Sources) -> Vec<(&'a str, &'a str, String)> {
    let of = |(entry, names): (&'a String, &'a Vec<String>)| {
        let key = entry.strip_prefix(path)?.strip_prefix('[')?.strip_suffix(']')?;
        Some((entry.as_str(), key, names.join(", ")))
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

    /// RuntimeConfigs of other nodes that say the same are no source of this one's.
    #[test]
    fn of_several_names_those_count_that_select_the_node() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let narrowed = |selecting: &[&str]| {
            let mut sources =
                Sources::from([("x".to_owned(), names(&["a", "b", "c"])), ("y".to_owned(), names(&["a", "d"]))]);
            narrow(&mut sources, &names(selecting).into_iter().collect());
            (sources["x"].clone(), sources["y"].clone())
        };
        assert_eq!(narrowed(&["b", "d"]), (names(&["b"]), names(&["d"])));
        assert_eq!(narrowed(&["a", "c", "z"]), (names(&["a", "c"]), names(&["a"])));
        let all = (names(&["a", "b", "c"]), names(&["a", "d"]));
        assert_eq!(
            (narrowed(&["z"]), narrowed(&[])),
            (all.clone(), all),
            "it selects them no more, or is not to be read"
        );
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
        let mut sources: Sources = sources.map(|(path, source)| (path.to_owned(), vec![source.to_owned()])).into();
        sources.insert("spec.registries[b.example]".to_owned(), vec!["other".to_owned(), "team".to_owned()]);
        let found = fields(&serde_json::from_value(config).unwrap(), &sources);
        let of = |path: &str| found.iter().find(|f| f.field == path).unwrap_or_else(|| panic!("{path} in {found:?}"));
        assert_eq!(
            (&of("spec.runtime.pidsLimit").value, of("spec.runtime.pidsLimit").source.as_str()),
            (&json!(100), "base")
        );
        assert_eq!(of("spec.registries[b.example]").source, "other, team");
        assert_eq!(of("spec.registries[b.example]").value["host"], "b.example");
        assert_eq!(of("spec.profiles[Seccomp/p]").value["name"], "p");
        assert_eq!(of("spec.runtime.logLevel").source, DEFAULT);
        assert!(
            !found.iter().any(|f| f.field.starts_with("spec.rollout")),
            "what only the operator follows is not of a node"
        );
    }
}
