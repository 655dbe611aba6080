//! `berth stop`.
use crate::commands::connect::{self, Runtime, said};
use crate::commands::listing::{self, ContainerView, PodView};
use crate::commands::names::{self, Target};
use crate::commands::output;
use crate::commands::pods::spec::translate::GRACE_PERIOD;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::cri as wire;

/// Of a container that says nothing, as a Pod has it.
const GRACE_DEFAULT: i64 = 30;

/// What to stop.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth stop web            pod web: its containers get their grace period, then it is taken down
  berth stop -t 0 abc123    at once

A container gets its stop signal, and is killed when the time is over. Without -t that is the Pod's
terminationGracePeriodSeconds.")]
pub struct Options {
    /// Seconds to wait before killing
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..=86_400))]
    time: Option<i64>,
    /// Pods (name, namespace/name or id) and containers (name or id)
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Stops them, one after the other; all names are looked up first.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let targets = options.names.iter().map(|name| names::find(&pods, name)).collect::<Result<Vec<_>>>()?;
    for (target, name) in targets.into_iter().zip(&options.names) {
        match target {
            Target::Pod(pod) => stop_pod(&mut runtime, pod, options.time).await?,
            Target::Container(_, container) => stop_container(runtime.clone(), container, options.time).await?,
        }
        output::line(name)?;
    }
    Ok(())
}

/// Stops a pod: its containers side by side, then the pod itself.
pub async fn stop_pod(runtime: &mut Runtime, pod: &PodView, time: Option<i64>) -> Result<()> {
    let mut stops = tokio::task::JoinSet::new();
    for container in pod.containers.iter().filter(|c| c.running()) {
        let (runtime, container) = (runtime.clone(), container.clone());
        stops.spawn(async move { stop_container(runtime, &container, time).await });
    }
    while let Some(stopped) = stops.join_next().await {
        stopped??;
    }
    let request = wire::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
    runtime.stop_pod_sandbox(request).await.map_err(said)?;
    Ok(())
}

/// Seconds that a container gets to stop in: what was said here, else in its Pod.
pub fn grace(container: &ContainerView, time: Option<i64>) -> i64 {
    let own = container.annotations.get(GRACE_PERIOD).and_then(|text| text.parse().ok());
    time.or(own).unwrap_or(GRACE_DEFAULT)
}

pub async fn stop_container(mut runtime: Runtime, container: &ContainerView, time: Option<i64>) -> Result<()> {
    let timeout = grace(container, time);
    let request = wire::StopContainerRequest { container_id: container.id.clone(), timeout };
    runtime.stop_container(request).await.map_err(said)?;
    Ok(())
}
