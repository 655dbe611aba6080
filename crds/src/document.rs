//! Text to documents: the one place that knows YAML. Sizes are limited before the parser sees a byte; what the parser says of
//! a place (line and column) is passed on.
use crate::image_policy::ImagePolicy;
use crate::metadata::{API_VERSION, is_name};
use crate::rules;
use crate::runtime_config::RuntimeConfig;
use crate::shape::{self, MAX_DEPTH};
use berth_model::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest file of documents in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Most documents in one file.
pub const MAX_DOCUMENTS_IN_FILE: usize = 100;

/// A document of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// RuntimeConfig.
    RuntimeConfig(Box<RuntimeConfig>),
    /// ImagePolicy.
    ImagePolicy(Box<ImagePolicy>),
}

impl Document {
    /// `Kind/name`, as messages and `berth info` show it.
    pub fn title(&self) -> String {
        match self {
            Self::RuntimeConfig(d) => format!("RuntimeConfig/{}", d.metadata.name),
            Self::ImagePolicy(d) => format!("ImagePolicy/{}", d.metadata.name),
        }
    }
}

/// Reads all documents of a file. Errors: `InvalidArgument` naming the document, the field, line and column.
pub fn parse_documents(text: &str) -> Result<Vec<Document>> {
    parse_known_documents(text, &|_| false)
}

/// As [`parse_documents`], but a document that is `known`, which was accepted before, is judged as by [`check_stored`].
pub fn parse_known_documents(text: &str, known: &dyn Fn(&Document) -> bool) -> Result<Vec<Document>> {
    if text.len() > MAX_DOCUMENT {
        return Err(Error::invalid("document", format!("is {} bytes long, the limit is {MAX_DOCUMENT}", text.len())));
    }
    if looks_too_deep(text) {
        return Err(Error::invalid("document", format!("is nested deeper than {MAX_DEPTH} levels")));
    }
    let mut documents = Vec::new();
    for (first_line, part) in split(text) {
        let line = first_line + 1;
        if documents.len() == MAX_DOCUMENTS_IN_FILE {
            return Err(Error::invalid("document", format!("file has more than {MAX_DOCUMENTS_IN_FILE} documents")));
        }
        // Empty lines in front keep the parser's line numbers those of the file.
        let padded = format!("{}{part}", "\n".repeat(first_line));
        if let Some(document) = parse_one(&padded, line, known)? {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// Parts between `---` lines with the number of lines before each.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            parts.push((number + 1, String::new()));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts
}

/// Flow collections are where YAML nests without indentation: `[[[[...`.
pub(crate) fn looks_too_deep(text: &str) -> bool {
    let mut depth = 0usize;
    text.bytes().any(|b| {
        match b {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    }) || text.lines().any(|l| l.len() - l.trim_start_matches([' ', '-']).len() > 8 * MAX_DEPTH)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

fn parse_one(text: &str, line: usize, known: &dyn Fn(&Document) -> bool) -> Result<Option<Document>> {
    shape::check(text).map_err(|e| Error::invalid("document", e))?;
    let head: Option<Head> = from_yaml(text, "document")?;
    let Some(head) = head else { return Ok(None) };
    if head.api_version != API_VERSION {
        let problem = format!("is {:?}, must be {API_VERSION} (document at line {line})", head.api_version);
        return Err(Error::invalid("apiVersion", problem));
    }
    let document = match head.kind.as_str() {
        "RuntimeConfig" => Document::RuntimeConfig(Box::new(from_yaml(text, "RuntimeConfig")?)),
        "ImagePolicy" => Document::ImagePolicy(Box::new(from_yaml(text, "ImagePolicy")?)),
        other => {
            let problem = format!("{other:?} is not a kind of {API_VERSION}; known are RuntimeConfig and ImagePolicy");
            return Err(Error::invalid("kind", format!("{problem} (document at line {line})")));
        }
    };
    // Only what is beyond the limits is looked up: that may cost something.
    let entered = || limits(&document).or_else(|e| if known(&document) { Ok(()) } else { Err(e) });
    check_stored(&document).and_then(|()| entered()).map_err(|e| {
        // A rule's message begins with the field's path.
        let field = e.message().split(": ").next().unwrap_or_default();
        let place = shape::locate(text, field);
        let place = place.map(|(line, column)| format!(" at line {line} column {column}")).unwrap_or_default();
        Error::new(e.kind(), format!("{}: {}{place}", document.title(), e.message()))
    })?;
    Ok(Some(document))
}

fn from_yaml<T: DeserializeOwned>(text: &str, what: &str) -> Result<T> {
    serde_yaml::from_str(text).map_err(|e| Error::invalid(what, e))
}

/// What `parse_documents` asks of every document: the rules that types cannot carry, and the limits of what newly enters. Errors:
/// `InvalidArgument` naming the field.
pub fn check(document: &Document) -> Result<()> {
    check_stored(document)?;
    limits(document)
}

/// The rules alone: for what was accepted before, and is on a node's disk or in a RuntimeRevision. A version with lower limits than the
/// one that took it in still enforces it. Errors: as [`check`].
pub fn check_stored(document: &Document) -> Result<()> {
    let name = match document {
        Document::RuntimeConfig(d) => &d.metadata.name,
        Document::ImagePolicy(d) => &d.metadata.name,
    };
    if !is_name(name) {
        return Err(Error::invalid("metadata.name", "must be lower-case letters, digits, '-' and '.', at most 253"));
    }
    match document {
        Document::RuntimeConfig(d) => rules::runtime_config(d),
        Document::ImagePolicy(d) => rules::image_policy(d),
    }
}

fn limits(document: &Document) -> Result<()> {
    match document {
        // Its limits are those of what a node can do, and rules.
        Document::RuntimeConfig(_) => Ok(()),
        Document::ImagePolicy(d) => rules::image_policy_limits(d),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: berth.dev/v1alpha1
kind: RuntimeConfig
metadata: {name: node}
spec:
  runtime: {pidsLimit: 100, cgroupManager: Cgroupfs}
  network: {mode: Builtin}
---
apiVersion: berth.dev/v1alpha1
kind: ImagePolicy
metadata: {name: default}
spec:
  mode: Enforce
  registries: {deny: ['bad.example']}
";

    #[test]
    fn documents_of_both_kinds_are_read() {
        let documents = parse_documents(GOOD).unwrap();
        assert_eq!(
            documents.iter().map(Document::title).collect::<Vec<_>>(),
            ["RuntimeConfig/node", "ImagePolicy/default"]
        );
        let Document::ImagePolicy(policy) = &documents[1] else { panic!("second is the policy") };
        assert_eq!(policy.spec.enforce_at.len(), 2, "both points by default");
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_place_in_the_file() {
        let text = GOOD.replace("registries: {deny: ['bad.example']}", "registry: {}");
        let message = parse_documents(&text).unwrap_err().to_string();
        assert!(message.contains("unknown field `registry`"), "{message}");
        assert!(message.contains("line 13 column 3"), "{message}");
    }

    #[test]
    fn wrong_values_name_the_field() {
        let cases = [
            ("pidsLimit: 100", "pidsLimit: 19", "spec.runtime.pidsLimit"),
            ("kind: ImagePolicy", "kind: Policy", "kind"),
            ("v1alpha1\nkind: ImagePolicy", "v2\nkind: ImagePolicy", "apiVersion"),
            ("{name: node}", "{name: Node_1}", "metadata.name"),
            ("mode: Enforce", "mode: Enforce\n  enforceAt: []", "spec.enforceAt"),
            ("mode: Builtin", "mode: Bridge", "network.mode"),
        ];
        for (from, to, field) in cases {
            let error = parse_documents(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.message().contains(field), "{field}: {error}");
            assert!(error.message().contains("line "), "{field}: {error}");
        }
    }

    #[test]
    fn limits_are_for_what_newly_enters_and_rules_for_all() {
        let hosts: Vec<String> = (0..300).map(|n| format!("h{n}.example")).collect();
        let text = GOOD.replace("'bad.example'", &hosts.join(", "));
        let message = parse_documents(&text).unwrap_err().to_string();
        assert!(message.contains("spec.registries.deny: has 300 entries, the limit is 256"), "{message}");
        let stored = parse_known_documents(&text, &|_| true).unwrap();
        assert!(check_stored(&stored[1]).is_ok() && check(&stored[1]).is_err());
        let known = |document: &Document| stored.contains(document);
        assert_eq!(parse_known_documents(&text, &known).unwrap(), stored);
        let changed = text.replace("h299.example", "other.example");
        assert!(parse_known_documents(&changed, &known).is_err(), "it is another one");
        let bad = text.replace("mode: Enforce", "mode: Enforce\n  enforceAt: []");
        let message = parse_known_documents(&bad, &|_| true).unwrap_err().to_string();
        assert!(message.contains("spec.enforceAt"), "{message}");
    }

    #[test]
    fn deep_and_long_documents_are_refused_before_parsing() {
        assert!(parse_documents(&"[".repeat(10_000)).is_err());
        assert!(parse_documents(&"#".repeat(MAX_DOCUMENT + 1)).is_err());
        assert_eq!(parse_documents("---\n# nothing\n---\n").unwrap(), []);
    }
}
