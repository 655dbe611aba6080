//! `berth config check`: the node's own rules, without a daemon.
use super::files;
use crate::accept;
use crate::commands::output;
use anyhow::{Result, bail};
use berth_settings::{Source, from_sources, parse_documents};
use std::path::PathBuf;

/// Which documents.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth config check -f node.yaml

Exit code: 0 when all documents are good, 1 when one is not; each problem has its file, line and column.")]
pub struct Options {
    /// File, directory of files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Checks each file, then all of them together. Every bad file is told.
pub fn run(options: &Options) -> Result<u8> {
    let (mut sources, mut bad) = (Vec::new(), 0);
    for (file, text) in files::texts(&options.files)? {
        match parse_documents(&text) {
            Ok(documents) => {
                sources.extend(documents.into_iter().map(|document| Source { file: file.clone(), document }))
            }
            Err(e) => {
                bad += 1;
                output::error_bytes(format!("{}: {}\n", file.display(), e.message()).as_bytes())?;
            }
        }
    }
    if bad > 0 {
        return Ok(1);
    }
    if sources.is_empty() {
        bail!("there is no document of apiVersion berth.dev/v1alpha1 in what was given");
    }
    let titles: Vec<String> = sources.iter().map(goodness).collect();
    // As the daemon does.
    if let Err(e) = from_sources(sources).and_then(|settings| accept::everywhere(&settings)) {
        output::error_bytes(format!("{}\n", e.message()).as_bytes())?;
        return Ok(1);
    }
    titles.into_iter().try_for_each(output::line)?;
    Ok(0)
}

/// What is said of a good document.
fn goodness(source: &Source) -> String {
    match source.for_the_cluster()[..] {
        [] => format!("{} is good", source.title()),
        ref fields => format!("{} is good; a node alone does nothing of {}", source.title(), fields.join(", ")),
    }
}
