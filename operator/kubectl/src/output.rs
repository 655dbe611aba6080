//! What is written: tables as kubectl prints them, or documents. The only file of this program that knows the YAML library.
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

/// A document's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// A document.
pub fn document(value: &impl Serialize, format: Format) -> Result<()> {
    match format {
        Format::Json => text(&(serde_json::to_string_pretty(value)? + "\n")),
        Format::Yaml => text(&serde_yaml::to_string(value)?),
    }
    Ok(())
}

/// Text. Whoever reads it may stop.
pub fn text(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A table as kubectl prints it: a line of capitals, columns three blanks apart, no cell empty.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let cell = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.replace(['\n', '\r', '\t'], " ") };
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| row.each_ref().map(|text| cell(text))));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), String::new()], ["längerer".to_owned(), "x\ny".to_owned()]];
        assert_eq!(table(["NAME", "B"], &rows), "NAME       B\na          <none>\nlängerer   x y\n");
    }
}
