//! `berth config`: the settings in force, where they come from, and what other documents would change.
mod check;
mod diff;
mod explain;
mod files;
mod import;
mod show;

use crate::commands::connect::{self, said};
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{ConfigRequest, ConfigResponse};
use clap::Subcommand;

/// What to do with the settings.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the settings in force
    Show(show::Options),
    /// Tell what a field is, its value, and the document that set it; without a field, list all
    Explain(explain::Options),
    /// Tell what documents would change; exit code 1 if anything, 2 for a failure
    Diff(diff::Options),
    /// Tell whether documents are good, without a daemon
    Check(check::Options),
    /// Write a RuntimeConfig of what another runtime's files say of registries (hosts.toml, registries.conf)
    ImportHosts(import::Options),
}

/// Does it; the exit code.
pub async fn run(layout: Result<Layout>, options: &Options) -> Result<u8> {
    match &options.command {
        Command::Show(options) => show::run(&layout?, options).await.map(|()| 0),
        Command::Explain(options) => explain::run(&layout?, options).await.map(|()| 0),
        Command::Diff(options) => diff::run(layout, options).await,
        Command::Check(options) => check::run(options),
        Command::ImportHosts(options) => import::run(options),
    }
}

async fn config(layout: &Layout) -> Result<ConfigResponse> {
    let mut node = connect::node(layout).await?;
    Ok(node.config(ConfigRequest {}).await.map_err(said)?.into_inner())
}
