//! `berth config diff`.
use super::files;
use crate::commands::connect::{self, said};
use crate::commands::output::{self, Document};
use crate::commands::table::Columns;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{ConfigChange, ConfigFile, DiffConfigRequest};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

/// Which documents.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth config diff -f node.yaml

A document takes the place of the one of its kind and name that is in force; others are added.
Exit code: 0 when nothing would change, 1 when something would, 2 when that cannot be told, as diff(1).
Classes: live (at once), new containers, new pods, daemon restart.")]
pub struct Options {
    /// File, directory of files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// As a document for scripts
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Document>,
}

#[derive(Serialize)]
struct Change {
    field: String,
    class: String,
    old: Value,
    new: Value,
}

/// Exit code when it cannot be told, as diff(1).
const FAILED: u8 = 2;

/// The exit code: whether something would change. A failure is told here: its code is another than that of other commands.
pub async fn run(layout: Result<Layout>, options: &Options) -> Result<u8> {
    match compare(layout, options).await {
        Err(e) if e.downcast_ref::<output::ReaderGone>().is_none() => {
            output::error_bytes(format!("berth: {e:#}\n").as_bytes())?;
            Ok(FAILED)
        }
        told => told,
    }
}

/// Asks the daemon, which knows what is in force.
async fn compare(layout: Result<Layout>, options: &Options) -> Result<u8> {
    let layout = layout?;
    let files = files::texts(&options.files)?.into_iter();
    let files = files.map(|(name, text)| ConfigFile { name: name.display().to_string(), text }).collect();
    let mut node = connect::node(&layout).await?;
    let answer = node.diff_config(DiffConfigRequest { files }).await.map_err(said)?.into_inner();
    let changed = !answer.changes.is_empty();
    match options.output {
        Some(format) => output::document(&answer.changes.into_iter().map(Change::from).collect::<Vec<_>>(), format)?,
        None if changed => output::bytes(text(&answer.changes).as_bytes())?,
        None => {}
    }
    Ok(u8::from(changed))
}

impl From<ConfigChange> for Change {
    fn from(c: ConfigChange) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self { old: json(&c.old), new: json(&c.new), field: c.field, class: c.class }
    }
}

fn text(changes: &[ConfigChange]) -> String {
    let mut table = Columns::new(&["FIELD", "FROM", "TO", "CLASS"], false);
    let shown = |json: &str| if json.is_empty() { "(default)".to_owned() } else { json.to_owned() };
    for c in changes {
        table.row([c.field.clone(), shown(&c.old), shown(&c.new), c.class.clone()]);
    }
    format!("{}\n", table.render())
}
