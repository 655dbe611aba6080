//! What is told while an operation goes on: lines on standard error. Whoever reads them may go away; the operation goes on.
use std::io::Write;
use std::time::Duration;

/// Where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk {
    /// Whether anything is said at all.
    pub(super) quiet: bool,
}

impl Talk {
    /// A line.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// A step is done.
    pub(super) fn step(&self, name: &str, took: Duration) {
        self.say(&format!("{name:<20} {:>6.2} s", took.as_secs_f64()));
    }
}
