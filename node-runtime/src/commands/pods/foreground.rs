//! `berth run IMAGE`: a pod of one container, with our streams as its streams until it ends.
use super::image_options::ImageOptions;
use super::node_facts;
use super::run::Session;
use super::spec::PullPolicy;
use crate::commands::connect::{self, said};
use crate::commands::containers::attach;
use crate::commands::containers::keys::DetachKeys;
use crate::commands::containers::session::{Ended, Streams};
use crate::commands::terminal;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_proto::cri as wire;

/// Runs it. Gives the container's exit code.
pub async fn run(layout: &Layout, options: &ImageOptions, pull: Option<PullPolicy>, quiet: bool) -> Result<u8> {
    if options.tty && options.interactive && !terminal::on_stdin() {
        bail!("standard input is no terminal; leave -t away");
    }
    let keys = DetachKeys::parse(&options.detach_keys)?;
    let uid = node_facts::new_uid()?;
    let pod = options.pod(&uid[..6])?;
    let mut session = Session::new(layout, pull, quiet).await?;
    let made = session.run_all(std::slice::from_ref(&pod), options.detach).await;
    session.unless_failed(made).await?;
    if options.detach {
        return Ok(0);
    }
    let container = session.containers().pop().context("the pod has no container")?;
    let node = connect::node(layout).await?;
    let streams = Streams { stdin: options.interactive, tty: options.tty, keys };
    let ended = attach::to(node, &container, streams, true, true).await;
    let ended = session.unless_failed(ended).await?;
    match ended {
        Ended::Exited(code) => {
            clear(layout, &mut session, &container, options.rm).await?;
            Ok(code)
        }
        Ended::Signal(code) => Ok(code),
        Ended::Detached => Ok(0),
    }
}

/// A pod whose container has ended keeps its log and nothing of the network; with `--rm`, and where it never ran, nothing.
async fn clear(layout: &Layout, session: &mut Session, container: &str, remove: bool) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let request = wire::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
    let status = runtime.container_status(request).await.map_err(said)?.into_inner().status;
    let never_ran = status.is_none_or(|s| s.started_at == 0);
    if remove || never_ran {
        return session.undo().await;
    }
    for pod_sandbox_id in session.pods() {
        runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id }).await.map_err(said)?;
    }
    Ok(())
}
