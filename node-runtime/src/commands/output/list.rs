//! Lists: the options that all of them have, and rows shown as a table, as documents, as names, or by a template.
use super::template::{Data, Template};
use super::{Document, colours, document, line};
use crate::commands::table::{Columns, short};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What `-o` of a list can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// Fields for scripts
    Json,
    /// The same fields
    Yaml,
    /// Only names
    Name,
}

/// How a list is shown.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Show {
    /// Only ids
    #[arg(short, long, conflicts_with_all = ["output", "format"])]
    pub quiet: bool,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,
    /// `json`, `table TEMPLATE` or TEMPLATE, as docker has them: '{{.ID}}\t{{.Names}}', '{{json .}}'
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "output")]
    pub format: Option<String>,
    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
}

/// Where a column is seen; templates see all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Always,
    Wide,
    Template,
}

/// A column of a list: a field of templates, and its heading.
pub struct Column<R> {
    pub field: &'static str,
    pub heading: &'static str,
    pub seen: Seen,
    pub cell: fn(&R, &Context) -> String,
}

// Not derived: that would ask the rows to be cloned.
impl<R> Clone for Column<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Column<R> {}

/// What cells need to know.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Unix nanoseconds.
    pub now: i64,
    /// Whether ids are shown whole.
    pub whole: bool,
}

impl Context {
    /// An id, short unless `--no-trunc` is given.
    pub fn id(&self, id: &str) -> String {
        if self.whole { id.to_owned() } else { short(id) }
    }

    /// A text, cut unless `--no-trunc` is given.
    pub fn cut(&self, text: &str, length: usize) -> String {
        if self.whole || text.chars().count() <= length {
            return text.to_owned();
        }
        text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
    }
}

/// Something that a list has rows of. Its serialized fields are those of `-o json`.
pub trait Row: Serialize {
    /// The whole id.
    fn id(&self) -> String;
    /// What other commands find it by.
    fn name(&self) -> String;
    /// For `.Label "key"`.
    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

impl Show {
    /// Whether `-o json` or `-o yaml` will show all fields.
    pub fn documents(&self) -> bool {
        !self.quiet && matches!(self.output, Output::Json | Output::Yaml)
    }

    /// Whether something beyond the plain table may be shown.
    pub fn more_than_table(&self) -> bool {
        !self.quiet && (self.output != Output::Table || self.format.is_some())
    }

    /// Shows the rows.
    pub fn rows<R: Row>(&self, rows: &[R], columns: &[Column<R>]) -> Result<()> {
        match self.text(rows, columns, colours())? {
            Text::Document(form) => document(&rows, form),
            Text::Lines(text) if text.is_empty() => Ok(()),
            Text::Lines(text) => line(text),
        }
    }

    /// A table's text; for lists that are drawn again and again. Documents and templates as [`Self::rows`] shows them.
    pub fn text<R: Row>(&self, rows: &[R], columns: &[Column<R>], colours: bool) -> Result<Text> {
        let context = Context { now: crate::commands::time::now(), whole: self.no_trunc };
        if self.quiet {
            return Ok(Text::Lines(lines(rows.iter().map(Row::id))));
        }
        if let Some(format) = &self.format {
            return by_format(format, rows, columns, context).map(Text::Lines);
        }
        Ok(match self.output {
            Output::Json => Text::Document(Document::Json),
            Output::Yaml => Text::Document(Document::Yaml),
            Output::Name => Text::Lines(lines(rows.iter().map(Row::name))),
            Output::Table | Output::Wide => {
                let wide = self.output == Output::Wide;
                let seen = |c: &&Column<R>| c.seen == Seen::Always || (wide && c.seen == Seen::Wide);
                let columns: Vec<_> = columns.iter().filter(seen).collect();
                let mut table = Columns::new(&columns.iter().map(|c| c.heading).collect::<Vec<_>>(), colours);
                rows.iter().for_each(|row| table.row(columns.iter().map(|c| (c.cell)(row, &context))));
                Text::Lines(table.render())
            }
        })
    }
}

/// What is to be shown.
pub enum Text {
    /// The rows as a document.
    Document(Document),
    /// This, without a line break at its end.
    Lines(String),
}

fn lines(items: impl Iterator<Item = String>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    items.filter(|item| seen.insert(item.clone())).collect::<Vec<_>>().join("\n")
}

fn by_format<R: Row>(format: &str, rows: &[R], columns: &[Column<R>], context: Context) -> Result<String> {
    let format = unescape(format.trim());
    let (as_table, text) = match format.as_str() {
        "json" => (false, "{{json .}}"),
        "table" => bail!("--format: after table comes a template, such as 'table {{{{.ID}}}}'"),
        "raw" | "pretty" => bail!("--format: {format} is not known; give json, table TEMPLATE or TEMPLATE"),
        text => match text.strip_prefix("table ").or_else(|| text.strip_prefix("table\t")) {
            Some(template) => (true, template.trim_start()),
            None => (false, text),
        },
    };
    let template = Template::parse(text)?;
    let filled = rows.iter().map(|row| {
        let root =
            Value::Object(columns.iter().map(|c| (c.field.to_owned(), (c.cell)(row, &context).into())).collect());
        let labels: Map<String, Value> = row.labels().into_iter().map(|(k, v)| (k, v.into())).collect();
        template.fill(Data { root: &root, labels: &labels, strict: true })
    });
    let filled = filled.collect::<Result<Vec<_>>>()?;
    if rows.is_empty() {
        // A wrong field is wrong without rows too.
        let known: Value = columns.iter().map(|c| (c.field.to_owned(), Value::from(""))).collect::<Map<_, _>>().into();
        template.fill(Data { root: &known, labels: &Map::new(), strict: true })?;
    }
    if !as_table {
        return Ok(filled.join("\n"));
    }
    let heading = |field: &String| {
        let column = columns.iter().find(|c| c.field.eq_ignore_ascii_case(field));
        column.map_or_else(|| field.to_uppercase(), |c| c.heading.to_owned())
    };
    let headings: Vec<String> = template.columns().iter().map(heading).collect();
    let mut table = Columns::new(&headings.iter().map(String::as_str).collect::<Vec<_>>(), colours());
    filled.iter().for_each(|text| table.row(text.split('\t').map(str::to_owned)));
    Ok(table.render())
}

/// A shell leaves `\t` and `\n` as two characters; docker takes them for one.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Labels as docker writes them: `a=1,b=2`.
pub fn joined_labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        id: String,
        count: u32,
    }

    impl Row for Thing {
        fn id(&self) -> String {
            self.id.clone()
        }
        fn name(&self) -> String {
            format!("n{}", self.count)
        }
        fn labels(&self) -> BTreeMap<String, String> {
            [("app".to_owned(), self.count.to_string())].into()
        }
    }

    const COLUMNS: &[Column<Thing>] = &[
        Column { field: "ID", heading: "THING ID", seen: Seen::Always, cell: |t, c| c.id(&t.id) },
        Column { field: "Count", heading: "COUNT", seen: Seen::Wide, cell: |t, _| t.count.to_string() },
        Column { field: "Twice", heading: "TWICE", seen: Seen::Template, cell: |t, _| (t.count * 2).to_string() },
    ];

    fn text(show: &Show) -> Result<String> {
        let thing = |id: &str, count| Thing { id: id.repeat(20), count };
        match show.text(&[thing("a", 1), thing("b", 2)], COLUMNS, false)? {
            Text::Lines(text) => Ok(text),
            Text::Document(_) => Ok("document".into()),
        }
    }

    #[test]
    fn rows_are_shown_in_every_way() {
        let show = Show::default();
        assert_eq!(text(&show).unwrap(), "THING ID\naaaaaaaaaaaa\nbbbbbbbbbbbb");
        let wide = Show { output: Output::Wide, no_trunc: true, ..show.clone() };
        assert_eq!(text(&wide).unwrap().lines().nth(1).unwrap(), "aaaaaaaaaaaaaaaaaaaa   1");
        assert_eq!(text(&Show { output: Output::Name, ..show.clone() }).unwrap(), "n1\nn2");
        assert_eq!(
            text(&Show { quiet: true, ..show.clone() }).unwrap(),
            format!("{}\n{}", "a".repeat(20), "b".repeat(20))
        );
        assert_eq!(text(&Show { output: Output::Json, ..show.clone() }).unwrap(), "document");
        let format = |format: &str| text(&Show { format: Some(format.to_owned()), ..Show::default() });
        assert_eq!(format(r"{{.ID}}\t{{.Twice}}").unwrap(), "aaaaaaaaaaaa\t2\nbbbbbbbbbbbb\t4");
        assert_eq!(
            format("table {{.ID}}\t{{.Twice}}").unwrap(),
            "THING ID       TWICE\naaaaaaaaaaaa   2\nbbbbbbbbbbbb   4"
        );
        assert_eq!(format("json").unwrap().lines().next().unwrap(), r#"{"Count":"1","ID":"aaaaaaaaaaaa","Twice":"2"}"#);
        assert_eq!(format("{{.Label \"app\"}}").unwrap(), "1\n2");
        assert!(format("{{.Nothing}}").unwrap_err().to_string().contains("--format"));
        assert!(format("table").is_err() && format("pretty").is_err());
    }

    #[test]
    fn a_wrong_field_is_wrong_without_rows_too() {
        let show = Show { format: Some("{{.Nope}}".into()), ..Show::default() };
        assert!(show.text::<Thing>(&[], COLUMNS, false).is_err());
    }
}
