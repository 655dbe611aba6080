//! YAML in and out, by way of JSON's value type: the only file of this binary that knows the YAML library.
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use serde_yaml::Value as Yaml;

/// Most documents of one stream.
const MAX_DOCUMENTS: usize = 256;

/// The documents of a stream; empty ones are left out. Duplicate keys, tags and keys that are no strings are refused.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        if documents.len() == MAX_DOCUMENTS {
            bail!("has more than {MAX_DOCUMENTS} documents");
        }
        match Yaml::deserialize(document)? {
            Yaml::Null => {}
            value => documents.push(json(value)?),
        }
    }
    Ok(documents)
}

/// A value as YAML text, with a line break at its end.
pub fn text(value: &impl Serialize) -> Result<String> {
    serde_yaml::to_string(value).context("YAML")
}

fn json(value: Yaml) -> Result<Value> {
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::Number(n) => Value::Number(number(&n)?),
        Yaml::String(s) => Value::String(s),
        Yaml::Sequence(list) => Value::Array(list.into_iter().map(json).collect::<Result<_>>()?),
        Yaml::Mapping(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let Yaml::String(key) = key else {
                    bail!("the key {key:?} is not a string; put it in quotes");
                };
                object.insert(key, json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => bail!("the tag {} is not allowed", tagged.tag),
    })
}

fn number(n: &serde_yaml::Number) -> Result<Number> {
    if let Some(n) = n.as_i64() {
        return Ok(n.into());
    }
    if let Some(n) = n.as_u64() {
        return Ok(n.into());
    }
    n.as_f64().and_then(Number::from_f64).ok_or_else(|| anyhow!("{n} is not a number that JSON knows"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn streams_become_json() {
        let text = "a: 1\nb: [x, 0.5, null, true]\n---\n# nothing\n---\n{c: \"1\"}\n";
        let wanted = vec![json!({"a": 1, "b": ["x", 0.5, null, true]}), json!({"c": "1"})];
        assert_eq!(documents(text).unwrap(), wanted);
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for bad in ["a: 1\na: 2", "1: a", "a: !x y", "a: .nan", "a: [", "a: *b"] {
            assert!(documents(bad).is_err(), "{bad:?}");
        }
        let many = "---\na: 1\n".repeat(MAX_DOCUMENTS + 1);
        assert!(documents(&many).is_err());
    }
}
