//! `berth exec`: a command in a container, with our streams as its streams.
use super::env;
use super::keys::{self, DetachKeys};
use super::session::{self, BACKLOG, Ended, Streams, not_started};
use crate::commands::connect::{self, said};
use crate::commands::{listing, names, terminal};
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::node::exec_input::Input;
use berth_proto::node::{EnvVar, ExecInput, ExecStart};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// What to run, and where.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth exec web cat /etc/hostname     in the only container of pod web
  berth exec -it db/app sh             a shell in container app of pod db
  berth exec -u 1000:1000 -w /srv -e LANG=C web env
  berth exec -d web /bin/backup        without streams; it goes on by itself

Ctrl-P Ctrl-Q leaves a session with -it, and the command goes on.

The exit code is the command's; 125 if it could not be run, 126 if it is no program, 127 if it is not there.")]
pub struct Options {
    /// Hand on what is typed or piped
    #[arg(short, long)]
    interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    tty: bool,
    /// Without streams, and do not wait for it
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables of a file of NAME=VALUE lines; --env counts before them
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR", default_value = "")]
    workdir: String,
    /// User, and group: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "")]
    user: String,
    /// Keys that leave the session
    #[arg(long, value_name = "KEYS", default_value = keys::DEFAULT)]
    detach_keys: String,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Container (name, pod/name or id), or pod (name, namespace/name or id)
    #[arg(value_name = "CONTAINER|POD")]
    name: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it. Gives its exit code.
pub async fn run(layout: &Layout, options: Options) -> Result<u8> {
    if options.tty && options.interactive && !terminal::on_stdin() {
        bail!("standard input is no terminal; leave -t away");
    }
    let keys = DetachKeys::parse(&options.detach_keys)?;
    let mut texts = env::files(&options.env_file)?;
    texts.extend(options.env);
    let env = env::variables(&texts)?;
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let (_, container) = names::container(&pods, &options.name, options.container.as_deref())?;
    if !container.running() {
        bail!("container {} does not run: {}", container.name, container.shown_state());
    }
    let (tell, inputs) = mpsc::channel(BACKLOG);
    let (rows, cols) = terminal::size();
    let start = ExecStart {
        container_id: container.id.clone(),
        command: options.command,
        tty: options.tty,
        stdin: options.interactive,
        rows,
        cols,
        env: env.into_iter().map(|(name, value)| EnvVar { name, value }).collect(),
        working_dir: options.workdir,
        user: options.user,
        detach: options.detach,
    };
    let _ = tell.send(ExecInput { input: Some(Input::Start(start)) }).await;
    let mut node = connect::node(layout).await?;
    let outputs = match node.exec(ReceiverStream::new(inputs)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return not_started(said(status)),
    };
    let streams = Streams { stdin: options.interactive, tty: options.tty, keys };
    // The daemon ends the command when we are gone.
    match session::hold(tell, outputs, streams, None).await? {
        Ended::Exited(code) | Ended::Signal(code) => Ok(code),
        Ended::Detached => Ok(0),
    }
}
