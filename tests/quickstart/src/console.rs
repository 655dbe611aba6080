//! How the quickstart talks: headings, indented output of programs, small tables.
use std::io::Write;

/// A step begins.
pub fn heading(text: &str) {
    println!("\n== {text}");
    flush();
}

/// Output of a program, indented; nothing for nothing.
pub fn indented(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
    flush();
}

/// Columns as wide as their widest cell; numbers are the caller's to pad.
pub fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        println!("   {}", line.trim_end());
    }
    flush();
}

/// What was printed comes before what a program prints next.
pub fn flush() {
    let _ = std::io::stdout().flush();
}
