//! What each field of RuntimeConfig means, from the doc comments of its types by way of their schema.
//! Must not: know single fields.
use crate::runtime_config::RuntimeConfigSpec;
use serde_json::Value;

/// Deepest nesting of fields; ours need six.
const MAX_DEPTH: usize = 12;

/// One field, or a struct of fields, as people are told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Path; entries of a list are `LIST[]`, such as `spec.registries[].host`.
    pub path: String,
    /// What it means.
    pub text: String,
    /// What may stand there: `string`, `integer`, `boolean`, `object`, `list of …`, or the values `A | B`.
    pub kind: String,
    /// Whether it has fields of its own.
    pub has_fields: bool,
}

/// All fields in the order of their names, each struct before its fields.
pub fn descriptions() -> Vec<Description> {
    let schema = schemars::schema_for!(RuntimeConfigSpec).to_value();
    let mut found = Vec::new();
    Walk { root: &schema, found: &mut found }.fields(&schema, "spec", 0);
    found
}

struct Walk<'a> {
    root: &'a Value,
    found: &'a mut Vec<Description>,
}

impl<'a> Walk<'a> {
    fn fields(&mut self, schema: &'a Value, path: &str, depth: usize) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        if depth == MAX_DEPTH {
            return;
        }
        for (name, property) in properties {
            let target = self.target(property);
            // The field's own words first; those of its type for want of them.
            let text = text(property).or_else(|| text(target)).unwrap_or_default();
            let path = format!("{path}.{name}");
            let inner = self.inner(target);
            let has_fields = inner.get("properties").is_some();
            let list = target.get("items").is_some();
            let kind = if list { format!("list of {}", self.kind(inner)) } else { self.kind(target) };
            self.found.push(Description { path: path.clone(), text, kind, has_fields });
            let path = if list { format!("{path}[]") } else { path };
            self.fields(inner, &path, depth + 1);
        }
    }

    /// Behind references, and of an optional one the type.
    fn target(&self, schema: &'a Value) -> &'a Value {
        let mut at = schema;
        for _ in 0..MAX_DEPTH {
            if let Some(reference) = at.get("$ref").and_then(Value::as_str) {
                let name = reference.rsplit('/').next().unwrap_or_default();
                match self.root.get("$defs").and_then(|d| d.get(name)) {
                    Some(definition) => at = definition,
                    None => return at,
                }
            } else if let Some(one) = at.get("anyOf").and_then(Value::as_array).and_then(|a| a.first()) {
                at = one;
            } else {
                return at;
            }
        }
        at
    }

    /// The entries' type of a list or map, else the type itself.
    fn inner(&self, schema: &'a Value) -> &'a Value {
        match schema.get("items") {
            Some(items) => self.target(items),
            None => schema,
        }
    }

    fn kind(&self, schema: &'a Value) -> String {
        let words = |values: Vec<&str>| values.join(" | ");
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return words(values.iter().filter_map(Value::as_str).collect());
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            return words(choices.iter().filter_map(|c| c.get("const").and_then(Value::as_str)).collect());
        }
        match schema.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(Value::Array(kinds)) => {
                words(kinds.iter().filter_map(Value::as_str).filter(|k| *k != "null").collect())
            }
            _ => "any".to_owned(),
        }
    }
}

/// A description as one line: line breaks of doc comments mean nothing.
fn text(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described_from_its_types() {
        let all = descriptions();
        let of = |path: &str| all.iter().find(|d| d.path == path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(of("spec.runtime.logLevel").kind, "Error | Warn | Info | Debug | Trace");
        assert_eq!(of("spec.runtime.pidsLimit").kind, "integer");
        assert_eq!(of("spec.registries").kind, "list of object");
        assert!(of("spec.registries[].tls.caPem").text.contains("in PEM"));
        assert!(of("spec.network.mode").kind.contains("CNI"), "{:?}", of("spec.network.mode"));
        for description in &all {
            assert!(!description.text.is_empty(), "{} has no doc comment", description.path);
            assert!(
                !description.text.contains("Class:"),
                "{}: its class is told by the table of fields",
                description.path
            );
        }
    }
}
