//! How far a pull has come: bars on a terminal, lines elsewhere, always on standard error.
use crate::commands::table::size;
use berth_proto::node::PullProgress;
use berth_proto::node::pull_progress::Stage;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);
/// One layer.
const LAYER: &str = "{prefix:12} {msg:11} [{bar:30}] {bytes:>10}/{total_bytes:10}";
/// The pull as a whole.
const WHOLE: &str = "{spinner} {msg}";

/// Shows the progress of one pull.
pub struct Progress {
    reference: String,
    how: How,
}

enum How {
    Silent,
    Lines(HashMap<String, Stage>),
    Bars { all: MultiProgress, whole: ProgressBar, layers: HashMap<String, ProgressBar> },
}

impl Progress {
    /// For this reference; `quiet` shows nothing.
    pub fn new(reference: &str, quiet: bool) -> Self {
        let how = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => How::Silent,
            (false, false) => How::Lines(HashMap::new()),
            (false, true) => {
                let all = MultiProgress::new();
                let whole = all.add(ProgressBar::no_length().with_style(style(WHOLE)));
                whole.set_message(format!("{reference}: resolving"));
                whole.enable_steady_tick(TICK);
                How::Bars { all, whole, layers: HashMap::new() }
            }
        };
        Self { reference: reference.to_owned(), how }
    }

    /// Shows a step.
    pub fn step(&mut self, step: &PullProgress) {
        match &mut self.how {
            How::Silent => {}
            How::Lines(seen) => {
                if seen.insert(step.item.clone(), step.stage()) != Some(step.stage()) {
                    eprintln!("{}", line(&self.reference, step));
                }
            }
            How::Bars { all, whole, layers } => {
                if step.item.is_empty() {
                    whole.set_message(format!("{}: {}", self.reference, word(step.stage())));
                    return;
                }
                let bar = layers.entry(step.item.clone()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(step.total).with_style(style(LAYER)));
                    bar.with_prefix(step.item.clone())
                });
                bar.set_length(step.total);
                bar.set_position(step.current);
                bar.set_message(word(step.stage()));
                if matches!(step.stage(), Stage::Done | Stage::Exists) {
                    bar.finish();
                }
            }
        }
    }

    /// The end; bars stay as they are, so that one sees what came.
    pub fn finish(self) {
        if let How::Bars { whole, layers, .. } = self.how {
            whole.finish_and_clear();
            layers.values().for_each(ProgressBar::abandon);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Resolving => "resolving",
        Stage::Downloading => "downloading",
        Stage::Unpacking => "unpacking",
        Stage::Done => "done",
        Stage::Exists => "exists",
        Stage::Uploading => "uploading",
    }
}

fn line(reference: &str, step: &PullProgress) -> String {
    let of = if step.item.is_empty() { reference } else { &step.item };
    match step.total {
        0 => format!("{of}: {}", word(step.stage())),
        total => format!("{of}: {} ({})", word(step.stage()), size(total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_what_and_how_much() {
        let step = |item: &str, stage: Stage, total| PullProgress {
            item: item.into(),
            stage: stage as i32,
            current: 0,
            total,
        };
        assert_eq!(line("r/i:1", &step("", Stage::Resolving, 0)), "r/i:1: resolving");
        assert_eq!(line("r/i:1", &step("abc", Stage::Downloading, 1500)), "abc: downloading (1.5 kB)");
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [LAYER, WHOLE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
