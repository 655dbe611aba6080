//! Standard output: a reader that goes away ends the program without a word, as it would end cat(1). Tables only look; the
//! fields of `-o json` and `-o yaml` are what scripts may rely on.
use super::yaml;
use anyhow::Result;
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};

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

/// Whether words may have colours: on a terminal, unless NO_COLOR says otherwise (no-color.org).
pub fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn written(done: io::Result<()>) -> Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        other => Ok(other?),
    }
}
