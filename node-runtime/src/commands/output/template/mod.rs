//! Templates of `--format`, as docker's users write them: the part of Go's text/template that they use. Fields, pipelines, `if`,
//! `range`, `with`, variables of `range`, and docker's functions. Pure; every input ends in a text or an error.
mod eval;
mod functions;
mod lex;
mod parse;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Longest template in bytes.
const MAX_BYTES: usize = 16 << 10;

/// A template that can be filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<parse::Node>);

/// What a template is filled in with.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// What `.` is.
    pub root: &'a Value,
    /// What `.Label "key"` looks into.
    pub labels: &'a Map<String, Value>,
    /// Whether a field of the root that is not there is an error; else it is `<no value>`.
    pub strict: bool,
}

impl Template {
    /// Reads one. Errors say what is wrong and where.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_BYTES {
            bail!("--format: is longer than {MAX_BYTES} bytes");
        }
        let tokens = lex::tokens(text).map_err(|e| e.context("--format"))?;
        Ok(Self(parse::nodes(tokens).map_err(|e| e.context("--format"))?))
    }

    /// Fills it in.
    pub fn fill(&self, data: Data<'_>) -> Result<String> {
        eval::run(&self.0, data).map_err(|e| e.context("--format"))
    }

    /// The fields of the root that stand alone in an action, in their order: what a table's headings are made of.
    pub fn columns(&self) -> Vec<String> {
        self.0.iter().filter_map(parse::Node::first_field).collect()
    }
}

/// A document by a template, or as one line of JSON. What is not there is `<no value>`.
pub fn of_document(format: &str, document: &impl serde::Serialize) -> Result<String> {
    let text =
        if format == "json" { "{{json .}}".to_owned() } else { format.replace("\\t", "\t").replace("\\n", "\n") };
    let root = serde_json::to_value(document)?;
    Template::parse(&text)?.fill(Data { root: &root, labels: &Map::new(), strict: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn filled(template: &str, root: &Value) -> Result<String> {
        let labels = json!({"app": "web", "a.b/c": "x,y"});
        let labels = labels.as_object().unwrap();
        Template::parse(template)?.fill(Data { root, labels, strict: true })
    }

    #[test]
    fn what_docker_users_write_works() {
        let root = json!({
            "ID": "0123456789abcdef", "Names": "web", "Count": 3, "Half": 0.5, "On": true, "Off": false, "Empty": "",
            "List": ["a", "b"], "Map": {"k": "v", "a-b": 1}, "None": null, "container": {"image": "x:1"},
        });
        let table = [
            ("{{.ID}}", "0123456789abcdef"),
            ("{{ .ID }}\t{{.Names}}", "0123456789abcdef\tweb"),
            ("{{json .Names}}", "\"web\""),
            ("{{.List | json}}", "[\"a\",\"b\"]"),
            ("{{upper .Names}} {{.Names | upper | lower}} {{title .Names}}", "WEB web Web"),
            ("{{truncate .ID 4}}{{.ID | truncate 2}}", "012301"),
            ("{{join .List \", \"}}", "a, b"),
            ("{{range split \"x:y\" \":\"}}[{{.}}]{{end}}", "[x][y]"),
            ("{{.Label \"app\"}}{{.Label \"none\"}}", "web"),
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
            ("{{if .Off}}a{{else if .Empty}}b{{else}}c{{end}}", "c"),
            ("{{with .Map}}{{.k}}{{end}}", "v"),
            ("{{range .List}}{{.}};{{else}}none{{end}}", "a;b;"),
            ("{{range $i, $v := .List}}{{$i}}={{$v}} {{end}}", "0=a 1=b "),
            ("{{range $k, $v := .Map}}{{$k}}:{{$v}} {{$.Names}} {{end}}", "a-b:1 web k:v web "),
            ("{{index .Map \"a-b\"}}{{index .List 1}}", "1b"),
            ("{{len .List}} {{len .Names}}", "2 3"),
            (
                "{{eq .Names \"web\"}} {{ne .Count 3}} {{lt .Count 4}} {{and .On .Off}} {{or .Off .Names}} {{not .Off}}",
                "true false true false web true",
            ),
            ("{{eq .Names \"a\" \"web\"}}", "true"),
            ("{{printf \"%s-%d %q %v%%\" .Names .Count .Names .On}}", "web-3 \"web\" true%"),
            ("a {{- .Names -}} b", "awebb"),
            ("{{/* nothing */}}x", "x"),
            ("{{.Container.Image}}", "x:1"),
            ("{{.List}} {{.Map}} {{.None}}", "[a b] map[a-b:1 k:v] <no value>"),
            ("{{(index .List 0) | upper}}", "A"),
            ("{{.Half}} {{`raw\\n`}} {{\"a\\tb\"}}", "0.5 raw\\n a\tb"),
            ("{{$x := .Names}}{{$x}}", "web"),
            ("{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ];
        for (template, wanted) in table {
            assert_eq!(filled(template, &root).unwrap(), wanted, "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let root = json!({"ID": "x", "Names": "n", "List": [1]});
        let table = [
            ("{{.Nmes}}", "no field Nmes; did you mean Names? There are ID, List, Names"),
            ("{{.ID", "an action is not closed"),
            ("{{}}", "an action is empty"),
            ("{{end}}", "{{end}} without if"),
            ("{{if .ID}}x", "is not closed by {{end}}"),
            ("{{nope .ID}}", "no function \"nope\""),
            ("{{\"x}}", "a string is not closed"),
            ("{{.ID | }}", "a pipe"),
            ("{{index .List 5}}", "out of"),
            ("{{$y}}", "no variable $y"),
            ("{{template \"x\"}}", "no function \"template\""),
            ("{{.ID.x}}", "is no object"),
            ("{{(.ID}}", "parenthesis"),
            ("{{join .ID \"x\"}}", "join"),
        ];
        for (template, part) in table {
            let error = format!("{:#}", filled(template, &root).unwrap_err());
            assert!(error.starts_with("--format: ") && error.contains(part), "{template}: {error}");
        }
        assert!(Template::parse(&"x".repeat(MAX_BYTES + 1)).is_err());
        let deep = format!("{{{{{}.ID{}}}}}", "(".repeat(200), ")".repeat(200));
        assert!(Template::parse(&deep).unwrap_err().to_string().starts_with("--format"));
    }

    #[test]
    fn tables_know_their_columns() {
        let template = Template::parse("{{.ID}}\t{{upper .Names}}\tx{{.Image | truncate 3}}").unwrap();
        assert_eq!(template.columns(), ["ID", "Names", "Image"]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[a-z{}.$|()\"` :=0-9\\\\-]{0,60}") {
            let root = json!({"a": "b", "c": [1, 2]});
            let _ = filled(&text, &root);
            let _ = filled(&format!("{{{{{text}}}}}"), &root);
        }
    }
}
