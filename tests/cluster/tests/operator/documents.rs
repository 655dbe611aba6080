//! The corpus of good and bad documents gets the same answers from the API server as from a node; every rule of the definitions is shown to
//! refuse something in its own words.
use crate::api::{Api, GROUP, repository};
use serde_json::{Value, json};

pub fn corpus(api: &Api) {
    let (mut answers, mut judged) = (String::new(), 0);
    let mut files: Vec<_> =
        std::fs::read_dir(repository().join("crds/tests/corpus")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines();
        let expected = lines.next().unwrap().trim_start_matches("# ");
        let otherwise = lines.next().and_then(|line| line.strip_prefix("# api: "));
        if otherwise == Some("never") {
            continue;
        }
        judged += 1;
        let answer = send(api, &serde_yaml::from_str(&text).unwrap());
        match (expected.strip_prefix("bad: "), otherwise, answer) {
            (None, _, Ok(_)) | (Some(_), Some("accepted"), Ok(_)) => {}
            (None, _, Err(e)) => panic!("{name} is good, and is refused: {e}"),
            (Some(_), _, Ok(_)) => panic!("{name} is bad, and is accepted"),
            (Some(words), otherwise, Err(e)) => {
                for word in otherwise.unwrap_or(words).split(" | ").filter(|word| !word.starts_with("line")) {
                    assert!(e.contains(word), "{name}: {word:?} is not in: {e}");
                }
                answers.push_str(&e);
                answers.push('\n');
            }
        }
    }
    assert!(judged > 80, "{judged}");
    for kind in ["runtimeconfigs", "imagepolicies"] {
        let text = std::fs::read_to_string(repository().join(format!("crds/generated/{kind}.yaml"))).unwrap();
        let definition: Value = serde_yaml::from_str(&text).unwrap();
        let mut messages = Vec::new();
        rules(&definition, &mut messages);
        assert!(!messages.is_empty());
        for message in messages {
            assert!(answers.contains(&message), "no document of the corpus is refused with: {message}");
        }
    }
}

/// As `kubectl create --dry-run=server` does: with unknown fields refused.
fn send(api: &Api, document: &Value) -> Result<Value, String> {
    let plural = match document["kind"].as_str().unwrap() {
        "RuntimeConfig" => "runtimeconfigs",
        _ => "imagepolicies",
    };
    api.post(&format!("{GROUP}/{plural}?dryRun=All&fieldValidation=Strict"), document)
}

fn rules(value: &Value, messages: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let list = fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
            messages.extend(list.map(|rule| rule["message"].as_str().unwrap().to_owned()));
            fields.values().for_each(|inner| rules(inner, messages));
        }
        Value::Array(list) => list.iter().for_each(|inner| rules(inner, messages)),
        _ => {}
    }
}

/// An object of ours.
pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
