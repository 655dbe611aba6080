//! `berth rm`: pods and containers, with what `berth run` has put beside them.
use crate::commands::connect::{self, Runtime, said};
use crate::commands::listing::{self, ContainerView, PodView};
use crate::commands::names::{self, Target};
use crate::commands::output;
use crate::commands::pods::places::Places;
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::cri as wire;
use std::path::Path;

/// What to remove.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth rm web           pod web, whose containers have ended
  berth rm -f web        pod web, whatever it does
  berth rm -f a b c      several

With a pod that `berth run` has made go its logs and its emptyDir volumes.")]
pub struct Options {
    /// Kill what runs
    #[arg(short, long)]
    force: bool,
    /// Volumes that are a container's own go with it in any case
    #[arg(short, long, hide = true)]
    volumes: bool,
    /// Pods (name, namespace/name or id) and containers (name or id)
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Removes them; nothing is removed if one of them may not be.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let targets = options.names.iter().map(|name| names::find(&pods, name)).collect::<Result<Vec<_>>>()?;
    if !options.force {
        targets.iter().try_for_each(refuse_running)?;
    }
    let places = Places::new(layout);
    for (target, name) in targets.into_iter().zip(&options.names) {
        match target {
            Target::Pod(pod) => remove_pod(&mut runtime, &places, pod).await?,
            Target::Container(_, container) => remove_container(&mut runtime, &places, container).await?,
        }
        output::line(name)?;
    }
    Ok(())
}

fn refuse_running(target: &Target<'_>) -> Result<()> {
    let (kind, name, running) = match target {
        Target::Pod(pod) => ("pod", pod.full_name(), pod.containers.iter().any(ContainerView::running)),
        Target::Container(_, container) => ("container", container.name.clone(), container.running()),
    };
    if running {
        bail!("{kind} {name} runs; stop it with `berth stop`, or kill it with `berth rm -f`");
    }
    Ok(())
}

async fn remove_pod(runtime: &mut Runtime, places: &Places, pod: &PodView) -> Result<()> {
    let pod_sandbox_id = pod.id.clone();
    runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id }).await.map_err(said)?;
    places.remove(&pod.namespace, &pod.name, &pod.uid)
}

async fn remove_container(runtime: &mut Runtime, places: &Places, container: &ContainerView) -> Result<()> {
    let mut container = container.clone();
    listing::fill_container(runtime, &mut container, false).await?;
    if container.running() {
        let request = wire::StopContainerRequest { container_id: container.id.clone(), timeout: 0 };
        runtime.stop_container(request).await.map_err(said)?;
    }
    let request = wire::RemoveContainerRequest { container_id: container.id.clone() };
    runtime.remove_container(request).await.map_err(said)?;
    places.remove_log(Path::new(&container.log_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_not_removed_unasked() {
        let container =
            |state: &str| ContainerView { state: state.into(), name: "c".into(), ..ContainerView::default() };
        let pod = |state: &str| PodView {
            name: "web".into(),
            namespace: "default".into(),
            state: "Ready".into(),
            containers: vec![container("Exited"), container(state)],
            ..PodView::default()
        };
        let (runs, ended) = (pod("Running"), pod("Created"));
        let error = refuse_running(&Target::Pod(&runs)).unwrap_err().to_string();
        assert!(error.starts_with("pod default/web runs; "), "{error}");
        assert!(refuse_running(&Target::Pod(&ended)).is_ok());
        assert!(refuse_running(&Target::Container(&runs, &runs.containers[1])).is_err());
        assert!(refuse_running(&Target::Container(&runs, &runs.containers[0])).is_ok());
    }
}
