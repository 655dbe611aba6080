//! What is done to the schemas that the types give: what the API server does not know goes, what `rules.rs` and `bounds.rs` say is put in.
use super::{bounds, rules};
use serde_json::{Map, Value, json};

/// A definition as it is published. A path of the tables that is not in the schema is shown in the definition's place, so that
/// nobody overlooks it.
pub(super) fn finish(mut definition: Value) -> Value {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    clean(schema);
    for (path, key, value) in bounds::of(&kind) {
        match at(schema, path) {
            Some(place) => drop(place.insert(key.to_owned(), value)),
            None => return json!({ "error": format!("{kind} has no {path}, which crd/bounds.rs names") }),
        }
    }
    for rule in rules::of(&kind) {
        let Some(place) = at(schema, rule.path) else {
            return json!({ "error": format!("{kind} has no {}, which crd/rules.rs names", rule.path) });
        };
        let list = place.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(rule.json());
        }
    }
    definition
}

/// The schema of a field: `spec.registries[].headers{}`; `` is the object itself.
fn at<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut place = schema;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let (name, inner) = part.split_at(part.find(['[', '{']).unwrap_or(part.len()));
        place = place.get_mut("properties")?.get_mut(name)?;
        for mark in inner.as_bytes().chunks(2) {
            place = place.get_mut(if mark == b"[]" { "items" } else { "additionalProperties" })?;
        }
    }
    place.as_object_mut()
}

/// Formats that the API server would warn of, `null` as a value, defaults that say nothing. Those that say something are in the
/// table of bounds.
fn clean(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("default");
    fields.remove("nullable");
    if fields.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
        fields.remove("format");
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            clean(inner);
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(clean);
    }
}
