//! `berth exec`: a command in a container, with our streams as its streams.
use crate::commands::connect::{self, Refusal, said};
use crate::commands::{listing, names, output, terminal};
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_proto::node::exec_input::Input;
use berth_proto::node::exec_output::Output;
use berth_proto::node::{ExecInput, ExecOutput, ExecStart, TerminalSize};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Inputs on their way to the daemon.
const BACKLOG: usize = 16;
const CHUNK: usize = 16 * 1024;
/// The command could not be run, for a reason of ours or of the daemon's.
pub const NOT_RUN: u8 = 125;

/// What to run, and where.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth exec web cat /etc/hostname     in the only container of pod web
  berth exec -it -c app db -- sh       a shell in container app of pod db

The exit code is the command's; 125 if it could not be run, 126 if it is no program, 127 if it is not there.")]
pub struct Options {
    /// Hand on what is typed or piped
    #[arg(short, long)]
    pub interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Container (name or id), or pod (name, namespace/name or id)
    #[arg(value_name = "CONTAINER|POD")]
    pub name: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs it. Gives its exit code.
pub async fn run(layout: &Layout, options: Options) -> Result<u8> {
    if options.tty && options.interactive && !terminal::on_stdin() {
        bail!("standard input is no terminal; leave -t away");
    }
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
    };
    send(&tell, Input::Start(start)).await;
    let mut node = connect::node(layout).await?;
    let outputs = match node.exec(ReceiverStream::new(inputs)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return not_started(said(status)),
    };
    let raw = (options.tty && options.interactive).then(terminal::Raw::enter).transpose()?;
    if options.interactive {
        tokio::spawn(feed(tell.clone()));
    }
    if options.tty {
        tokio::spawn(follow_size(tell.clone()));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let code = tokio::select! {
        code = show(outputs) => code,
        // The terminal is put back before we go; the daemon ends the command when we are gone.
        _ = terminate.recv() => Ok(128 + 15),
        _ = hangup.recv() => Ok(128 + 1),
    };
    drop(raw);
    drop(tell);
    code
}

/// The daemon says the code that a shell would give, where there is one.
fn not_started(error: anyhow::Error) -> Result<u8> {
    let code = error.downcast_ref::<Refusal>().and_then(|refusal| refusal.exec_code);
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => {
            eprintln!("berth: {error:#}");
            Ok(code)
        }
        None => Err(error),
    }
}

async fn send(tell: &mpsc::Sender<ExecInput>, input: Input) -> bool {
    tell.send(ExecInput { input: Some(input) }).await.is_ok()
}

/// Hands on standard input until it ends.
async fn feed(tell: mpsc::Sender<ExecInput>) {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK];
    loop {
        match stdin.read(&mut chunk).await {
            Ok(n) if n > 0 => {
                if !send(&tell, Input::Stdin(chunk[..n].to_vec())).await {
                    return;
                }
            }
            _ => {
                send(&tell, Input::StdinClosed(true)).await;
                return;
            }
        }
    }
}

/// Tells the command's terminal when ours changes its size.
async fn follow_size(tell: mpsc::Sender<ExecInput>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let (rows, cols) = terminal::size();
        if !send(&tell, Input::Resize(TerminalSize { rows, cols })).await {
            return;
        }
    }
}

/// Writes out what the command writes, until it ends.
async fn show(mut outputs: Streaming<ExecOutput>) -> Result<u8> {
    while let Some(output) = outputs.message().await.map_err(said)? {
        match output.output {
            Some(Output::Stdout(bytes)) => {
                output::bytes(&bytes)?;
                output::flush()?;
            }
            Some(Output::Stderr(bytes)) => output::error_bytes(&bytes)?,
            Some(Output::ExitCode(code)) => return u8::try_from(code).context("exit code of the command"),
            None => {}
        }
    }
    bail!("the daemon ended before it told the command's exit code")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shells_code_is_taken_over_and_nothing_else() {
        let refusal = |exec_code| Refusal { message: "no (exit code 127)".to_owned(), exec_code }.into();
        assert_eq!(not_started(refusal(Some(126))).unwrap(), 126);
        assert!(not_started(refusal(None)).is_err());
    }
}
