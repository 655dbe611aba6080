//! `berth rmi` and `berth tag`: names of images.
use crate::commands::connect::{self, said};
use crate::commands::output;
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::node::{TagImageRequest, UntagImageRequest};

/// What to remove.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth rmi web:1             this name; with its last one goes the image
  berth rmi -f 3f4b5a6c7d8e   the image, whatever its names, and though containers stand on it

Containers keep the layers that they stand on. Image names that are not there are told, and the rest goes; with -f
they are no failure.")]
pub struct Options {
    /// Also images that are used or pinned, and ids with several names
    #[arg(short, long)]
    force: bool,
    /// Names and ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Removes them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut node = connect::node(layout).await?;
    let mut failed = 0;
    let absent = |status: &tonic::Status| status.code() == tonic::Code::NotFound;
    for name in &options.images {
        match node.untag_image(UntagImageRequest { name: name.clone(), force: options.force }).await {
            Ok(removed) => {
                let removed = removed.into_inner();
                removed.untagged.iter().try_for_each(|name| output::line(format_args!("Untagged: {name}")))?;
                removed.deleted.iter().try_for_each(|id| output::line(format_args!("Deleted: {id}")))?;
            }
            Err(e) => {
                failed += usize::from(!(options.force && absent(&e)));
                eprintln!("berth: {:#}", said(e));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} images were not removed", options.images.len());
    }
    Ok(())
}

/// What to name.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth tag web:1 registry.example/web:1
  berth tag 3f4b5a6c7d8e web:latest

A name that another image has is taken from it.")]
pub struct TagOptions {
    /// Image: a name or an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The further name
    #[arg(value_name = "TARGET")]
    name: String,
}

/// Names it.
pub async fn tag(layout: &Layout, options: &TagOptions) -> Result<()> {
    let mut node = connect::node(layout).await?;
    let request = TagImageRequest { image: options.image.clone(), name: options.name.clone() };
    node.tag_image(request).await.map_err(said)?;
    Ok(())
}
