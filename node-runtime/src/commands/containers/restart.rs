//! `berth restart` and `berth start`: one more attempt at containers that nobody else looks after.
use super::each::{self, Failures};
use super::stop::grace;
use crate::commands::connect::{self, Node, said};
use crate::commands::listing::{self, ContainerView};
use crate::commands::output;
use crate::commands::pods::places::Places;
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::cri as wire;
use berth_proto::node::RestartRequest;

/// What to restart.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth restart web           the containers of pod web, one after the other
  berth restart -t 5 db/app   container app of pod db, with 5 seconds to stop in

A container is stopped, and the next attempt at it begins in the same pod: it has a new id, and its log a
new file (`berth logs --previous` shows the one before). Containers of a kubelet's pods are refused: the
kubelet itself restarts what ends (`berth stop` is enough).")]
pub struct Restart {
    /// Seconds to wait before killing
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..=86_400))]
    time: Option<i64>,
    /// Containers (name, pod/name or id), or pods for all that are in them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What to start.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth start web             what is in pod web and does not run

A container that was created and never started is started. One that has ended gets its next attempt, as
`berth restart` makes it.")]
pub struct Start {
    /// Containers (name, pod/name or id), or pods for all in them that do not run
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Restarts them.
pub async fn restart(layout: &Layout, options: &Restart) -> Result<u8> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let found = each::containers(&mut runtime, &options.names, |_| true, "is none to restart").await?;
    let mut node = connect::node(layout).await?;
    let mut failures = Failures::default();
    for (name, _, container) in found {
        let mut container = container;
        listing::fill_container(&mut runtime, &mut container, false).await?;
        let done = again(layout, &mut node, &container, grace(&container, options.time)).await;
        failures.note(&name, done.and_then(|()| output::line(&name)))?;
    }
    Ok(failures.code())
}

/// Starts them.
pub async fn start(layout: &Layout, options: &Start) -> Result<u8> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let rests = |c: &ContainerView| !c.running();
    let found = each::containers(&mut runtime, &options.names, rests, "runs already").await?;
    let mut node = connect::node(layout).await?;
    let mut failures = Failures::default();
    for (name, _, mut container) in found {
        let done = if container.state == "Created" {
            let request = wire::StartContainerRequest { container_id: container.id.clone() };
            runtime.start_container(request).await.map(drop).map_err(said)
        } else {
            listing::fill_container(&mut runtime, &mut container, false).await?;
            again(layout, &mut node, &container, 0).await
        };
        failures.note(&name, done.and_then(|()| output::line(&name)))?;
    }
    Ok(failures.code())
}

async fn again(layout: &Layout, node: &mut Node, container: &ContainerView, grace: i64) -> Result<()> {
    let kubelets = container.labels.contains_key("io.kubernetes.pod.uid");
    if kubelets && !Places::new(layout).owns_log(&container.log_path) {
        bail!("its pod is a kubelet's, which restarts it by itself; `berth stop` is enough");
    }
    let request = RestartRequest { container_id: container.id.clone(), grace };
    node.restart(request).await.map(drop).map_err(said)
}
