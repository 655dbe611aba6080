//! Tables without borders, as docker and kubectl print them.
use super::output::harmless;
use comfy_table::{Cell, Color, Table, presets};

/// A table under construction.
pub struct Columns {
    table: Table,
    colours: bool,
}

impl Columns {
    /// A table with these headings.
    pub fn new(headings: &[&str], colours: bool) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(headings.iter().copied());
        if colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        Self { table, colours }
    }

    /// Adds a row. A cell that is empty is shown as `-`; one that names a state gets its colour.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|text| {
            let text = harmless(&text);
            let text = if text.is_empty() { "-".to_owned() } else { text };
            match state_colour(&text).filter(|_| self.colours) {
                Some(colour) => Cell::new(text).fg(colour),
                None => Cell::new(text),
            }
        });
        self.table.add_row(cells);
    }

    /// The text, without spaces at the ends of lines.
    pub fn render(mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        self.table.trim_fmt()
    }
}

fn state_colour(text: &str) -> Option<Color> {
    match text.split([' ', '(']).next()? {
        "Running" | "Ready" | "Up" => Some(Color::Green),
        "Created" => Some(Color::Yellow),
        "Exited" if text.starts_with("Exited (0)") => Some(Color::DarkGrey),
        "Exited" | "Unknown" => Some(Color::Red),
        "NotReady" => Some(Color::DarkGrey),
        _ => None,
    }
}

/// Bytes as `512 B`, `12.3 MB`, with powers of 1000 as docker has them.
pub fn size(bytes: u64) -> String {
    let mut unit = 1u64;
    for name in ["B", "kB", "MB", "GB"] {
        let next = unit * 1000;
        if bytes < next {
            return scaled(bytes, unit, name);
        }
        unit = next;
    }
    scaled(bytes, unit, "TB")
}

fn scaled(bytes: u64, unit: u64, name: &str) -> String {
    if unit == 1 {
        return format!("{bytes} {name}");
    }
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// The first 12 digits of an id, with or without `sha256:`.
pub fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(colours: bool) -> String {
        let mut table = Columns::new(&["NAME", "STATE", "X"], colours);
        table.row(["a-long-name".into(), "Running".into(), String::new()]);
        table.row(["b\n\u{1b}[2J".into(), "Exited (3)".into(), "x".into()]);
        table.render()
    }

    #[test]
    fn columns_line_up_and_nothing_forges_a_row() {
        let text = rendered(false);
        assert_eq!(text, "NAME          STATE        X\na-long-name   Running      -\nb??[2J        Exited (3)   x");
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        assert!(!rendered(false).contains('\u{1b}'));
        assert!(rendered(true).contains('\u{1b}'));
    }

    #[test]
    fn sizes_and_ids_are_short() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (12_345_678, "12.3 MB"),
            (5_000_000_000_000_000, "5000.0 TB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446744.0 TB");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("ab"), "ab");
    }
}
