//! `berth image …`: what there is to say about images, in one place, as docker has it.
use super::{archive, history, list, prune, pull, push, referrers, rmi};
use crate::commands::node::inspect;
use crate::layout::Layout;
use anyhow::Result;
use clap::Subcommand;

/// What to do with images.
#[derive(Subcommand)]
pub enum Command {
    /// List images
    #[command(visible_alias = "list")]
    Ls(list::Options),
    /// Pull an image
    Pull(pull::Options),
    /// Push an image
    Push(push::Options),
    /// Take in the images of an archive
    #[command(visible_alias = "load")]
    Import(archive::ImportOptions),
    /// Write images into an archive
    #[command(visible_alias = "save")]
    Export(archive::ExportOptions),
    /// Give an image a further name
    Tag(rmi::TagOptions),
    /// Remove names, and images with their last one
    #[command(visible_alias = "remove")]
    Rm(rmi::Options),
    /// Show all that is known of an image
    Inspect(inspect::Options),
    /// Show how an image came to be
    History(history::Options),
    /// Show what refers to an image: signatures, attestations, bills of materials
    Referrers(referrers::Options),
    /// Remove images that nobody uses
    Prune(prune::Options),
}

/// Does it.
pub async fn run(layout: &Layout, command: &Command) -> Result<()> {
    match command {
        Command::Ls(options) => list::run(layout, options).await,
        Command::Pull(options) => pull::run(layout, options).await,
        Command::Push(options) => push::run(layout, options).await,
        Command::Import(options) => archive::import(layout, options).await,
        Command::Export(options) => archive::export(layout, options).await,
        Command::Tag(options) => rmi::tag(layout, options).await,
        Command::Rm(options) => rmi::run(layout, options).await,
        Command::Inspect(options) => inspect::run(layout, options).await,
        Command::History(options) => history::run(layout, options).await,
        Command::Referrers(options) => referrers::run(layout, options).await,
        Command::Prune(options) => prune::run(layout, options).await,
    }
}
