//! Which of the things that come and go a list shows: all or those that live, by filters, or the newest.
//! Must not: know what the things are.
use super::filter::{Filters, Match};
use anyhow::Result;

/// Which of them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Choice {
    /// Those that have ended too
    #[arg(short, long)]
    all: bool,
    /// Keep what fits KEY=VALUE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// The N that were created last, in whatever state
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// The one that was created last, in whatever state
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
}

impl Choice {
    /// The filters. Errors name the key and those that there are.
    pub fn filters(&self, known: &[(&'static str, Match)]) -> Result<Filters> {
        Filters::parse(&self.filters, known)
    }

    /// Whether those in other states are wanted too: by a word, by a filter that names states, or because the newest are.
    pub fn every_state(&self, filters: &Filters, of_states: &[&str]) -> bool {
        self.all || self.newest().is_some() || of_states.iter().any(|key| filters.values(key).next().is_some())
    }

    /// Only the newest, the newest first, if that is wanted.
    pub fn keep_newest<R>(&self, rows: &mut Vec<R>, created: impl Fn(&R) -> i64) {
        if let Some(count) = self.newest() {
            rows.sort_by_key(|row| std::cmp::Reverse(created(row)));
            rows.truncate(count);
        }
    }

    fn newest(&self) -> Option<usize> {
        if self.latest { Some(1) } else { self.last }
    }
}
