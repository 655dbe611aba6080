//! Kubernetes' label selector, as far as objects' labels are known: which nodes a document is about.
//! Must not: know whose labels they are. Source: apimachinery, meta/v1 `LabelSelector`.
use berth_model::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most requirements of one selector, and most values of one requirement.
const MAX_ENTRIES: usize = 64;
/// Longest key: a DNS subdomain, `/` and a name. Source: apimachinery, util/validation.
const MAX_KEY: usize = 253 + 1 + 63;
/// Longest value.
const MAX_VALUE: usize = 63;

/// A label selector: everything that it says must hold; an empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels and the values they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// What must be with it.
    pub operator: LabelOperator,
    /// Values, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What must be with a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It is there with one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels are as demanded.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }

    /// Errors: `InvalidArgument` naming the field below `field`.
    pub(crate) fn check(&self, field: &str) -> Result<()> {
        let expressions = &self.match_expressions;
        if self.match_labels.len() > MAX_ENTRIES || expressions.len() > MAX_ENTRIES {
            return Err(Error::invalid(field, format!("may have {MAX_ENTRIES} labels and requirements at most")));
        }
        for (key, value) in &self.match_labels {
            check_text(&format!("{field}.matchLabels"), key, std::slice::from_ref(value))?;
        }
        for (i, expression) in expressions.iter().enumerate() {
            let field = format!("{field}.matchExpressions[{i}]");
            let needs = matches!(expression.operator, LabelOperator::In | LabelOperator::NotIn);
            if needs == expression.values.is_empty() || expression.values.len() > MAX_ENTRIES {
                let problem = format!("In and NotIn need 1 to {MAX_ENTRIES} values, Exists and DoesNotExist take none");
                return Err(Error::invalid(field, problem));
            }
            check_text(&field, &expression.key, &expression.values)?;
        }
        Ok(())
    }
}

fn check_text(field: &str, key: &str, values: &[String]) -> Result<()> {
    let word = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if key.is_empty() || key.len() > MAX_KEY || !key.chars().all(word) {
        return Err(Error::invalid(field, format!("{key:?} is not the key of a label")));
    }
    match values.iter().find(|v| v.len() > MAX_VALUE || !v.chars().all(|c| word(c) && c != '/')) {
        Some(value) => Err(Error::invalid(field, format!("{value:?} is not the value of a label"))),
        None => Ok(()),
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn all_that_is_said_must_hold() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let cases = [
            ("{}", true),
            (r#"{"matchLabels": {"a": "1"}}"#, true),
            (r#"{"matchLabels": {"a": "2"}}"#, false),
            (r#"{"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}"#, false),
            (r#"{"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}"#, true),
            (r#"{"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}"#, false),
        ];
        for (json, matches) in cases {
            assert_eq!(selector(json).matches(&labels), matches, "{json}");
        }
    }

    #[test]
    fn values_go_with_the_operators_that_have_some() {
        for json in [
            r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#,
            r#"{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]}"#,
            r#"{"matchExpressions": [{"key": "", "operator": "Exists"}]}"#,
            r#"{"matchLabels": {"a": "not a value"}}"#,
        ] {
            let message = selector(json).check("spec.nodeSelector").unwrap_err().to_string();
            assert!(message.contains("spec.nodeSelector.match"), "{json}: {message}");
        }
        assert!(selector(r#"{"matchLabels": {"example.com/a": ""}}"#).check("x").is_ok());
    }
}
