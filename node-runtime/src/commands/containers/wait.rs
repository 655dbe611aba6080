//! `berth wait`: until containers have ended.
use super::each;
use crate::commands::connect::{self, said};
use crate::commands::output;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::WaitRequest;

/// What to wait for.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth wait job              prints the exit code of the container of pod job when it has ended
  berth wait --exit-code job && echo done

Prints one exit code a line, in the order of the names.")]
pub struct Options {
    /// End with the exit code of the last one
    #[arg(long)]
    exit_code: bool,
    /// Containers (name, pod/name or id), or pods for all that are in them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Waits.
pub async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let found = each::containers(&mut runtime, &options.names, |_| true, "is none to wait for").await?;
    let mut node = connect::node(layout).await?;
    let mut last = 0;
    for (_, _, container) in found {
        let answer = node.wait(WaitRequest { container_id: container.id }).await.map_err(said)?.into_inner();
        output::line(answer.exit_code)?;
        last = u8::try_from(answer.exit_code).unwrap_or(u8::MAX);
    }
    Ok(if options.exit_code { last } else { 0 })
}
