//! `berth prune`: images that nobody uses.
use crate::commands::connect::{self, said};
use crate::commands::output;
use crate::commands::output::filter::{Filters, Match};
use crate::commands::table::size;
use crate::commands::time;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_proto::node::PruneImagesRequest;
use std::io::{BufRead, IsTerminal, Write};

/// What to remove.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth prune                             images without a tag that nobody uses
  berth prune -a                          all images that nobody uses
  berth prune -a -f --filter until=24h    those built more than a day ago, without a question

Filters (--filter KEY=VALUE): until (a span such as 24h, or a time such as 2026-01-31T12:00:00Z),
dangling (true: those without a tag, false: all), label (KEY or KEY=VALUE; label!=KEY spares those that have it).
Images that containers stand on, and those of spec.images.pinned, stay in any case.")]
pub struct Options {
    /// Those with tags too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep to what fits KEY=VALUE
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

const KEYS: &[(&str, Match)] = &[("until", Match::Other), ("dangling", Match::Other), ("label", Match::Label)];

/// Removes them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let request = request(options)?;
    let mut node = connect::node(layout).await?;
    if !options.force && !agreed(&request)? {
        return Ok(());
    }
    let pruned = node.prune_images(request).await.map_err(said)?.into_inner();
    pruned.untagged.iter().try_for_each(|name| output::line(format_args!("Untagged: {name}")))?;
    pruned.deleted.iter().try_for_each(|id| output::line(format_args!("Deleted: {id}")))?;
    output::line(format_args!("Total reclaimed space: {}", size(pruned.reclaimed_bytes)))
}

fn request(options: &Options) -> Result<PruneImagesRequest> {
    let filters = Filters::parse(&options.filters, KEYS)?;
    let mut all = options.all;
    for value in filters.values("dangling") {
        all = match value {
            "true" | "1" => false,
            "false" | "0" => true,
            other => bail!("--filter dangling={other}: must be true or false"),
        };
    }
    let mut until = 0;
    for value in filters.values("until") {
        let at = match time::parse_rfc3339(value) {
            Some(at) => at,
            None => {
                let span = time::parse_span(value).with_context(|| format!("--filter until={value}"))?;
                time::now() - i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
            }
        };
        until = at;
    }
    let labels = filters.values("label").map(str::to_owned).collect();
    let without_labels = filters.unwanted("label").map(str::to_owned).collect();
    Ok(PruneImagesRequest { all, until, labels, without_labels })
}

/// Asks on a terminal; elsewhere nobody could answer.
fn agreed(request: &PruneImagesRequest) -> Result<bool> {
    let what = if request.all {
        "all images that no container uses"
    } else {
        "all images without a tag that no container uses"
    };
    if !std::io::stdin().is_terminal() {
        bail!("this removes {what}; -f says that this is meant");
    }
    eprint!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_dockers() {
        let ask = |all, filters: &[&str]| {
            request(&Options { all, force: true, filters: filters.iter().map(|f| (*f).to_owned()).collect() })
        };
        assert!(!ask(false, &[]).unwrap().all && ask(true, &[]).unwrap().all);
        assert!(ask(false, &["dangling=false"]).unwrap().all);
        assert!(!ask(true, &["dangling=true"]).unwrap().all);
        let until = ask(true, &["until=24h"]).unwrap().until;
        let day = time::now() - until;
        assert!((86_400_000_000_000..86_460_000_000_000).contains(&day), "{day}");
        assert_eq!(ask(true, &["until=1970-01-01T00:00:01Z"]).unwrap().until, 1_000_000_000);
        assert_eq!(ask(true, &["label=a=b", "label=c"]).unwrap().labels, ["a=b", "c"]);
        let kept = ask(true, &["label!=keep"]).unwrap();
        assert_eq!((kept.labels.len(), kept.without_labels), (0, vec!["keep".to_owned()]));
        for bad in ["until=soon", "dangling=perhaps", "size=3", "until!=24h"] {
            assert!(ask(true, &[bad]).is_err(), "{bad}");
        }
    }
}
