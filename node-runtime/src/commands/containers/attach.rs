//! `berth attach`: our streams as those of a container's first process.
use super::keys::{self, DetachKeys};
use super::session::{self, BACKLOG, Ended, Streams, not_started};
use crate::commands::connect::{self, Node, said};
use crate::commands::{listing, names, terminal};
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::node::attach_input::Input;
use berth_proto::node::{AttachInput, AttachStart, KillRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// What to attach to.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth attach web                 the only container of pod web
  berth attach --no-stdin db/app   only look

Ctrl-P Ctrl-Q leaves a container that has a terminal; it goes on running. Without a terminal, signals are
sent on to it (--sig-proxy=false leaves instead).

The exit code is the container's; 125 if it could not be attached to. What it wrote before is in `berth logs`.")]
pub struct Options {
    /// Only look
    #[arg(long)]
    no_stdin: bool,
    /// Send SIGINT, SIGTERM, SIGHUP and SIGQUIT on to it
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Keys that leave the session
    #[arg(long, value_name = "KEYS", default_value = keys::DEFAULT)]
    detach_keys: String,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Container (name, pod/name or id), or pod (name, namespace/name or id)
    #[arg(value_name = "CONTAINER|POD")]
    name: String,
}

/// Attaches. Gives the container's exit code.
pub async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    let keys = DetachKeys::parse(&options.detach_keys)?;
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let (_, found) = names::container(&pods, &options.name, options.container.as_deref())?;
    if !found.running() {
        bail!("container {} does not run: {}", found.name, found.shown_state());
    }
    let mut container = found.clone();
    listing::fill_container(&mut runtime, &mut container, true).await?;
    let streams = Streams { stdin: container.stdin && !options.no_stdin, tty: container.tty, keys };
    let node = connect::node(layout).await?;
    to(node, &container.id, streams, options.sig_proxy, false).await.map(|ended| match ended {
        Ended::Exited(code) | Ended::Signal(code) => code,
        Ended::Detached => 0,
    })
}

/// Attaches to a container; with `run` one that is to be started by this. A start that fails for its program ends with the
/// shell's code.
pub async fn to(mut node: Node, id: &str, streams: Streams, sig_proxy: bool, run: bool) -> Result<Ended> {
    let (tell, inputs) = mpsc::channel(BACKLOG);
    let (rows, cols) = if streams.tty { terminal::size() } else { (0, 0) };
    let start = AttachStart { container_id: id.to_owned(), stdin: streams.stdin, rows, cols, run };
    let _ = tell.send(AttachInput { input: Some(Input::Start(start)) }).await;
    let outputs = match node.attach(ReceiverStream::new(inputs)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return not_started(said(status)).map(Ended::Exited),
    };
    let proxied = (sig_proxy && !streams.tty).then(|| proxy(node, id.to_owned()));
    session::hold(tell, outputs, streams, proxied).await
}

/// Sends signals on.
fn proxy(mut node: Node, container_id: String) -> mpsc::Sender<&'static str> {
    let (tell, mut signals) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        while let Some(signal) = signals.recv().await {
            let request = KillRequest { container_id: container_id.clone(), signal: String::from(signal) };
            if let Err(status) = node.kill(request).await {
                eprintln!("berth: SIG{signal} is not sent on: {}", said(status));
            }
        }
    });
    tell
}
