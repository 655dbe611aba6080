//! `berth config explain`.
use super::config;
use crate::commands::output::{self, Document, colours};
use crate::commands::table::Columns;
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::node::{ConfigField, ConfigResponse};
use berth_settings::{Description, descriptions};
use serde::Serialize;
use serde_json::Value;

/// Which field.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth config explain                                      all fields with values, classes and sources
  berth config explain runtime.pidsLimit
  berth config explain 'spec.registries[].tls'

Classes say what a change takes: live (at once), new containers, new pods, daemon restart.")]
pub struct Options {
    /// Path of a field, with or without `spec.`; entries of lists are `LIST[]`
    #[arg(value_name = "FIELD")]
    field: Option<String>,
    /// As a document for scripts
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Document>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    field: String,
    description: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    default: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    class: String,
    sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    has_fields: bool,
}

/// Explains it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let config = config(layout).await?;
    let all: Vec<Explained> = descriptions().into_iter().map(|d| explained(&config, d)).collect();
    // What all fields are in is no field.
    let field = options.field.as_deref().filter(|name| !name.trim_end_matches('.').eq_ignore_ascii_case("spec"));
    let chosen: Vec<Explained> = match field {
        None => all.into_iter().filter(|e| config.fields.iter().any(|f| f.path == e.field)).collect(),
        Some(name) => below(all, name)?,
    };
    match (options.output, field) {
        (Some(format), _) => output::document(&chosen, format),
        (None, None) => output::bytes(table(&chosen).as_bytes()),
        (None, Some(_)) => output::bytes(text(&chosen).as_bytes()),
    }
}

/// The field and, if it has any, those in it.
fn below(all: Vec<Explained>, name: &str) -> Result<Vec<Explained>> {
    let name = name.trim_end_matches('.');
    let path = if name.starts_with("spec.") { name.to_owned() } else { format!("spec.{name}") };
    let wanted = path.trim_end_matches("[]").to_lowercase();
    let known: Vec<String> = all.iter().map(|e| e.field.clone()).collect();
    let inside = |field: &str| {
        let rest = field.strip_prefix(&wanted);
        rest.is_some_and(|r| r.is_empty() || r.starts_with('.') || r.starts_with("[]"))
    };
    let found: Vec<Explained> = all.into_iter().filter(|e| inside(&e.field.to_lowercase())).collect();
    if found.is_empty() {
        let last = wanted.rsplit('.').next().unwrap_or_default().to_owned();
        let like = known.into_iter().filter(|k| k.to_lowercase().contains(&last)).take(5).collect::<Vec<_>>();
        let hint = match like.is_empty() {
            true => "`berth config explain` lists all fields".to_owned(),
            false => format!("do you mean {}?", like.join(" or ")),
        };
        bail!("there is no field {path}; {hint}");
    }
    Ok(found)
}

fn explained(config: &ConfigResponse, d: Description) -> Explained {
    let row = config.fields.iter().find(|f| f.path == d.path);
    // A field of a list's entries is what the list is: its value stands there, its class is the list's.
    let above = || config.fields.iter().find(|f| d.path.starts_with(&format!("{}[]", f.path)));
    let of = |field: &ConfigField| (field.class.clone(), field.sources.clone());
    let (class, sources) = row.map(of).or_else(|| above().map(of)).unwrap_or_default();
    let parsed = |text: &str| serde_json::from_str(text).ok();
    let pending = config.pending.iter().find(|c| c.field == d.path);
    Explained {
        value: row.and_then(|r| parsed(&r.value)),
        default: row.map(|r| r.default_value.clone()).unwrap_or_default(),
        running: pending.map(|c| parsed(&c.old).unwrap_or(Value::String("the default".into()))),
        problem: config.problems.get(&d.path).cloned(),
        field: d.path,
        description: d.text,
        kind: d.kind,
        class,
        sources,
        has_fields: d.has_fields,
    }
}

fn shown(e: &Explained) -> String {
    e.value.as_ref().map_or_else(|| format!("({})", e.default), Value::to_string)
}

fn table(all: &[Explained]) -> String {
    let mut table = Columns::new(&["FIELD", "VALUE", "CLASS", "SOURCE"], colours());
    for e in all {
        let mut value = shown(e);
        if value.chars().count() > 40 {
            value = format!("{}…", value.chars().take(39).collect::<String>());
        }
        if e.running.is_some() {
            value += " (pending restart)";
        }
        let source = if e.sources.is_empty() { "default".to_owned() } else { e.sources.join(", ") };
        table.row([e.field.clone(), value, e.class.clone(), source]);
    }
    format!("{}\n", table.render())
}

fn text(all: &[Explained]) -> String {
    let Some((first, inner)) = all.split_first() else { return String::new() };
    let mut lines = vec![("Field", first.field.clone()), ("Description", first.description.clone())];
    lines.push(("Type", first.kind.clone()));
    if !first.default.is_empty() {
        lines.push(("Value", shown(first)));
        lines.push(("Default", first.default.clone()));
    }
    if !first.class.is_empty() {
        lines.push(("Class", first.class.clone()));
        let source =
            if first.sources.is_empty() { "none; the default holds".to_owned() } else { first.sources.join(", ") };
        lines.push(("Source", source));
    }
    if let Some(running) = &first.running {
        lines.push(("Running", format!("{running}, until the daemon is restarted")));
    }
    if let Some(problem) = &first.problem {
        lines.push(("Problem", problem.clone()));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{:<13}{value}\n", format!("{name}:"))).collect();
    if !inner.is_empty() {
        text += "Fields:\n";
        for e in inner {
            let more = if e.has_fields { ", with fields" } else { "" };
            text += &format!("  {} ({}{more})\n      {}\n", e.field, e.kind, e.description);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Explained> {
        let field = ConfigField {
            path: "spec.runtime.pidsLimit".into(),
            class: "new containers".into(),
            value: "100".into(),
            default_value: "no limit".into(),
            sources: vec!["RuntimeConfig/node (10-node.yaml)".into()],
        };
        let registries = ConfigField { path: "spec.registries".into(), class: "live".into(), ..Default::default() };
        let config = ConfigResponse { fields: vec![field, registries], ..Default::default() };
        descriptions().into_iter().map(|d| explained(&config, d)).collect()
    }

    #[test]
    fn a_field_has_value_default_class_and_source() {
        let text = text(&below(all(), "Runtime.PidsLimit").unwrap());
        for part in
            ["Value:       100\n", "Default:     no limit\n", "Class:       new containers\n", "(10-node.yaml)\n"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let host = below(all(), "registries[].host").unwrap();
        assert_eq!((host.len(), host[0].class.as_str()), (1, "live"));
        assert!(below(all(), "registries").unwrap().len() > 3);
    }

    #[test]
    fn an_unknown_field_is_answered_with_like_ones() {
        let message = below(all(), "spec.pidsLimit").err().unwrap().to_string();
        assert!(message.contains("spec.runtime.pidsLimit"), "{message}");
    }
}
