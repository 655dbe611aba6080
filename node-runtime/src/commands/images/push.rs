//! `berth push`.
use super::progress::Progress;
use super::pull::Login;
use crate::commands::connect::{self, Node, said};
use crate::commands::output;
use crate::commands::table::size;
use crate::layout::Layout;
use anyhow::{Result, anyhow};
use berth_proto::node::push_image_event::Event;
use berth_proto::node::{PushImageRequest, PushImageResult};

/// What to push.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth push registry.example/web:1
  berth push web:1 registry.example/web:1        to another name than its own
  berth push --creds me --password-stdin registry.example/web:1 < password

Blobs that the registry has are not sent again; those of another repository there are mounted.
Prints where it went, and its digest there.")]
pub struct Options {
    /// Image: a name, or with TARGET an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to; without it the image's own name
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    #[command(flatten)]
    login: Login,
    /// Show no progress, only the digest
    #[arg(short, long)]
    quiet: bool,
}

/// Pushes it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (username, password) = options.login.read()?;
    let target = options.target.clone().unwrap_or_default();
    let mut node = connect::node(layout).await?;
    let mut progress = Progress::new(if target.is_empty() { &options.image } else { &target }, options.quiet);
    let request = PushImageRequest { image: options.image.clone(), target, username, password };
    let pushed = follow(&mut node, request, &mut progress).await;
    progress.finish();
    let result = pushed?;
    if options.quiet {
        return output::line(result.digest);
    }
    let PushImageResult { existed, mounted, uploaded, sent_bytes, .. } = result;
    eprintln!("berth: {uploaded} blobs sent ({}), {mounted} mounted, {existed} were there", size(sent_bytes));
    output::line(format_args!("{} {} {}", result.target, result.digest, result.size))
}

async fn follow(node: &mut Node, request: PushImageRequest, progress: &mut Progress) -> Result<PushImageResult> {
    let mut events = node.push_image(request).await.map_err(said)?.into_inner();
    while let Some(event) = events.message().await.map_err(said)? {
        match event.event {
            Some(Event::Progress(step)) => progress.step(&step),
            Some(Event::Result(result)) => return Ok(result),
            None => {}
        }
    }
    Err(anyhow!("the daemon ended before the push did"))
}
