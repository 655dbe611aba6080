//! `berth kill`: a signal to the first process of containers.
use super::each::{self, Failures};
use crate::commands::connect::{self, said};
use crate::commands::listing::ContainerView;
use crate::commands::output;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::KillRequest;

/// What to signal.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth kill web              SIGKILL to the containers of pod web
  berth kill -s HUP db/app    SIGHUP to container app of pod db

Only the first process gets the signal. `berth stop` stops gently.")]
pub struct Options {
    /// Name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Containers (name, pod/name or id), or pods for all that run in them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Signals them.
pub async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let found = each::containers(&mut runtime, &options.names, ContainerView::running, "does not run").await?;
    let mut node = connect::node(layout).await?;
    let mut failures = Failures::default();
    for (name, _, container) in found {
        let request = KillRequest { container_id: container.id, signal: options.signal.clone() };
        let done = node.kill(request).await.map_err(said);
        failures.note(&name, done.and_then(|_| output::line(&name)))?;
    }
    Ok(failures.code())
}
