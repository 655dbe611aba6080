//! Standard output: a reader that goes away ends the program without a word, as it would end cat(1). Tables only look; the
//! fields of `-o json` and `-o yaml` are what scripts may rely on.
pub mod choice;
pub mod filter;
pub mod list;
pub mod template;

use super::yaml;
use anyhow::Result;
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

/// A text of somebody else's: a line break or control character in it must not forge a line, or drive the terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// When words have colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR or TERM=dumb say otherwise
    #[default]
    Auto,
    /// In a pipe too
    Always,
    /// Not at all
    Never,
}

static COLOUR: OnceLock<Colour> = OnceLock::new();

/// What `--color` says; the first word counts.
pub fn set_colour(colour: Colour) {
    let _ = COLOUR.set(colour);
}

/// Whoever reads our output has gone.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for ReaderGone {}

/// What `-o` can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// Fields for scripts
    Json,
    /// The same fields
    Yaml,
}

/// What `-o` can be where there is no table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Document {
    /// JSON
    #[default]
    Json,
    /// YAML
    Yaml,
}

/// Writes bytes to standard output.
pub fn bytes(data: &[u8]) -> Result<()> {
    written(io::stdout().lock().write_all(data))
}

/// Writes to standard error.
pub fn error_bytes(data: &[u8]) -> Result<()> {
    written(io::stderr().lock().write_all(data))
}

/// Writes what is still buffered.
pub fn flush() -> Result<()> {
    written(io::stdout().lock().flush())
}

/// Writes a line.
pub fn line(text: impl fmt::Display) -> Result<()> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes a value as JSON or YAML.
pub fn document(value: &impl Serialize, format: Document) -> Result<()> {
    match format {
        Document::Json => line(serde_json::to_string_pretty(value)?),
        Document::Yaml => bytes(yaml::text(value)?.as_bytes()),
    }
}

/// Whether words may have colours: as `--color` says, else on a terminal, unless NO_COLOR says otherwise (no-color.org).
pub fn colours() -> bool {
    match COLOUR.get().copied().unwrap_or_default() {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => {
            let forbidden = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            io::stdout().is_terminal() && !forbidden && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        }
    }
}

fn written(done: io::Result<()>) -> Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        other => Ok(other?),
    }
}
