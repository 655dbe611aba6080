//! YAML in, as JSON's values: the only file of this crate that knows the YAML library.
use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of the only document of a text. JSON is YAML too. Errors: what is wrong, in words.
pub fn fields(text: &str) -> Result<Map<String, Value>, String> {
    let mut found = None;
    for document in serde_yaml::Deserializer::from_str(text) {
        // By way of YAML's own values, which have no key twice.
        let yaml = serde_yaml::Value::deserialize(document).map_err(|e| e.to_string())?;
        match serde_json::to_value(yaml).map_err(|e| e.to_string())? {
            Value::Null => {}
            Value::Object(_) if found.is_some() => return Err("has more than one document".to_owned()),
            Value::Object(fields) => found = Some(fields),
            _ => return Err("is no document with fields".to_owned()),
        }
    }
    found.ok_or_else(|| "is no document with fields".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_document_with_fields_is_taken() {
        assert_eq!(Value::from(fields("a: 1\nb: [x]\n---\n").unwrap()), json!({"a": 1, "b": ["x"]}));
        assert_eq!(Value::from(fields("{\"a\": {\"b\": null}}").unwrap()), json!({"a": {"b": null}}));
        for bad in ["", "- a", "a: 1\n---\nb: 2", "a: [", "x", "a: *b", "a: 1\n? a\n: 2"] {
            assert!(fields(bad).is_err(), "{bad:?}");
        }
    }
}
