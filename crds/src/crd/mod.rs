//! The API server's definitions of our kinds, made of the types: their schema, and what `rules.rs` and `bounds.rs` add to it.
//!
//! `cargo xtask generate` writes them to `crds/generated`. Must not: say anything of a field that a node would not say too; the
//! corpus of documents (`crds/tests/corpus`) gets the same answers from both.
mod bounds;
mod rules;
mod schema;

use crate::{ImagePolicyObject, RuntimeConfigObject, RuntimeNode, RuntimeRevision};
use kube::CustomResourceExt;
use serde_json::Value;

/// Says that a file is not for editing.
const HEADER: &str = "# Generated from crds/src by `cargo xtask generate`; changes here are lost.\n";

/// The definitions, as JSON.
pub fn definitions() -> Vec<Value> {
    let all = [RuntimeConfigObject::crd(), ImagePolicyObject::crd(), RuntimeRevision::crd(), RuntimeNode::crd()];
    all.into_iter().map(|crd| schema::finish(serde_json::to_value(crd).unwrap_or_default())).collect()
}

/// Names of files and their texts: one file per kind.
pub fn files() -> Vec<(String, String)> {
    let file = |definition: Value| {
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default().to_owned();
        let yaml = serde_yaml::to_string(&definition).unwrap_or_default();
        (format!("{plural}.yaml"), format!("{HEADER}{yaml}"))
    };
    definitions().into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema below one, with its path.
    fn walk<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        found.push((path.to_owned(), schema));
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(inner, &format!("{path}.{name}"), found);
        }
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[key].is_object() {
                walk(&schema[key], &format!("{path}{mark}"), found);
            }
        }
    }

    #[test]
    fn every_field_is_described_and_of_a_format_that_the_api_server_knows() {
        for definition in definitions() {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
            let mut found = Vec::new();
            walk(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind, &mut found);
            assert!(found.len() > 10, "{kind}");
            for (path, schema) in found {
                let inner = path.ends_with("[]") || path.ends_with("{}");
                let known = ["", "date-time", "int32", "int64"];
                assert!(inner || schema["description"].is_string(), "{path} has no description");
                assert!(known.contains(&schema["format"].as_str().unwrap_or_default()), "{path}: {}", schema["format"]);
                assert!(schema["nullable"].is_null(), "{path} is nullable");
            }
        }
    }

    /// A column whose field has another name now stays empty, and nobody is told.
    #[test]
    fn columns_show_fields_that_there_are() {
        for definition in definitions() {
            let version = &definition["spec"]["versions"][0];
            for column in version["additionalPrinterColumns"].as_array().unwrap() {
                let path = column["jsonPath"].as_str().unwrap();
                // A condition is found by its type; of metadata the schema says nothing.
                let plain = path.split('[').next().unwrap().trim_start_matches('.');
                let mut at = &version["schema"]["openAPIV3Schema"];
                for part in plain.split('.').filter(|_| !plain.starts_with("metadata.")) {
                    at = &at["properties"][part];
                }
                assert!(at.is_object(), "{}: {column}", definition["metadata"]["name"]);
            }
        }
    }

    /// Who runs its pods comes first: until no node is `Managed`, a release must not go (docs/cluster.md).
    #[test]
    fn a_node_shows_who_runs_its_pods() {
        let node = definitions().pop().unwrap();
        let columns = node["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let shown = columns.iter().filter(|column| column["priority"].is_null()).map(|column| column["name"].as_str());
        let shown: Vec<_> = shown.flatten().collect();
        assert_eq!(shown, ["State", "Phase", "Desired", "Current", "Runtime", "Healthy", "Age"]);
        assert_eq!(columns[0]["jsonPath"], ".status.state");
    }

    #[test]
    fn what_is_merged_has_no_default_in_the_schema() {
        for field in crate::all_fields() {
            let definition = &definitions()[0];
            let mut at = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            for part in field.path.split('.') {
                at = &at["properties"][part];
            }
            assert!(at.is_object(), "{} is not in the schema", field.path);
            assert!(at["default"].is_null(), "{}: each RuntimeConfig would set it", field.path);
        }
    }
}
