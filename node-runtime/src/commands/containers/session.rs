//! Our streams as the streams of a process in a container: standard input with its detach keys, both outputs, the terminal's
//! size, and the end. What exec, attach and run have in common.
use super::keys::DetachKeys;
use crate::commands::connect::{Refusal, said};
use crate::commands::{output, terminal};
use anyhow::{Context, Result, bail};
use berth_proto::node::exec_output::Output;
use berth_proto::node::{AttachInput, ExecInput, ExecOutput, TerminalSize, attach_input, exec_input};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;

/// Inputs on their way to the daemon.
pub const BACKLOG: usize = 16;
const CHUNK: usize = 16 * 1024;
/// How long the daemon may take to hear that we go.
const HEARD: Duration = Duration::from_secs(5);
/// So many SIGINTs end a session whose process does not.
const INSISTED: u32 = 3;
/// The command could not be run, for a reason of ours or of the daemon's.
pub const NOT_RUN: u8 = 125;

/// What a session says to the daemon.
pub trait Input: Send + Sized + 'static {
    fn stdin(bytes: Vec<u8>) -> Self;
    fn closed() -> Self;
    fn resize(size: TerminalSize) -> Self;
    /// What tells that the process is to go on without us; none where it does so anyway.
    fn detach() -> Option<Self>;
}

impl Input for ExecInput {
    fn stdin(bytes: Vec<u8>) -> Self {
        Self { input: Some(exec_input::Input::Stdin(bytes)) }
    }
    fn closed() -> Self {
        Self { input: Some(exec_input::Input::StdinClosed(true)) }
    }
    fn resize(size: TerminalSize) -> Self {
        Self { input: Some(exec_input::Input::Resize(size)) }
    }
    fn detach() -> Option<Self> {
        Some(Self { input: Some(exec_input::Input::Detach(true)) })
    }
}

impl Input for AttachInput {
    fn stdin(bytes: Vec<u8>) -> Self {
        Self { input: Some(attach_input::Input::Stdin(bytes)) }
    }
    fn closed() -> Self {
        Self { input: Some(attach_input::Input::StdinClosed(true)) }
    }
    fn resize(size: TerminalSize) -> Self {
        Self { input: Some(attach_input::Input::Resize(size)) }
    }
    fn detach() -> Option<Self> {
        None
    }
}

/// What of our streams takes part.
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// The process has a terminal.
    pub tty: bool,
    /// Looked for where there is a terminal.
    pub keys: DetachKeys,
}

/// How a session has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The process has, with this code.
    Exited(u8),
    /// The detach keys were typed.
    Detached,
    /// This signal came to us.
    Signal(u8),
}

/// Holds the session until its end. With `signals`, SIGINT, SIGTERM, SIGHUP and SIGQUIT go there instead of ending it.
pub async fn hold<I: Input>(
    tell: mpsc::Sender<I>,
    outputs: Streaming<ExecOutput>,
    streams: Streams,
    signals: Option<mpsc::Sender<&'static str>>,
) -> Result<Ended> {
    let Streams { stdin, tty, keys } = streams;
    let raw = (tty && stdin && terminal::on_stdin()).then(terminal::Raw::enter).transpose()?;
    let (left, detached) = oneshot::channel();
    let keys = if tty { keys } else { DetachKeys::parse("")? };
    if stdin {
        tokio::spawn(feed(tell.clone(), keys, left));
    }
    if tty {
        tokio::spawn(follow_size(tell.clone()));
    }
    let detached = async {
        match detached.await {
            Ok(()) => {}
            Err(_) => std::future::pending().await,
        }
    };
    let mut shown = std::pin::pin!(show(outputs));
    let ended = tokio::select! {
        code = shown.as_mut() => code.map(Ended::Exited),
        () = detached => {
            if let Some(detach) = I::detach() {
                // The daemon says that it has heard: before that, our going would be the command's end.
                let _ = tell.send(detach).await;
                let _ = tokio::time::timeout(HEARD, shown).await;
            }
            Ok(Ended::Detached)
        }
        signal = signalled(signals) => Ok(Ended::Signal(signal?)),
    };
    // The terminal is put back before we go.
    drop(raw);
    if matches!(ended, Ok(Ended::Detached)) {
        eprintln!("\nberth: detached; it goes on running");
    }
    ended
}

/// Waits for a signal that ends the session; hands the others on.
async fn signalled(hand_on: Option<mpsc::Sender<&'static str>>) -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut interrupt, mut quit) = match &hand_on {
        Some(_) => (Some(signal(SignalKind::interrupt())?), Some(signal(SignalKind::quit())?)),
        None => (None, None),
    };
    let mut interrupts = 0;
    loop {
        let (name, number) = tokio::select! {
            _ = terminate.recv() => ("TERM", 15),
            _ = hangup.recv() => ("HUP", 1),
            Some(_) = async { Some(interrupt.as_mut()?.recv().await) } => ("INT", 2),
            Some(_) = async { Some(quit.as_mut()?.recv().await) } => ("QUIT", 3),
        };
        // Who insists is let go, as docker does it: a first process may ignore signals.
        interrupts += u32::from(number == 2);
        match &hand_on {
            Some(to) if interrupts < INSISTED && to.send(name).await.is_ok() => {}
            _ => return Ok(128 + number),
        }
    }
}

/// Hands on standard input until it ends or the keys are typed.
async fn feed<I: Input>(tell: mpsc::Sender<I>, mut keys: DetachKeys, left: oneshot::Sender<()>) {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK];
    loop {
        match stdin.read(&mut chunk).await {
            Ok(n) if n > 0 => match keys.pass(&chunk[..n]) {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => {
                    if tell.send(I::stdin(bytes)).await.is_err() {
                        return;
                    }
                }
                None => {
                    let _ = left.send(());
                    return;
                }
            },
            _ => {
                let _ = tell.send(I::closed()).await;
                // Held: a sender that is dropped would look like keys.
                tell.closed().await;
                return;
            }
        }
    }
}

/// Tells the process's terminal when ours changes its size.
async fn follow_size<I: Input>(tell: mpsc::Sender<I>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let (rows, cols) = terminal::size();
        if tell.send(I::resize(TerminalSize { rows, cols })).await.is_err() {
            return;
        }
    }
}

/// Writes out what the process writes, until it ends.
async fn show(mut outputs: Streaming<ExecOutput>) -> Result<u8> {
    while let Some(output) = outputs.message().await.map_err(said)? {
        match output.output {
            Some(Output::Stdout(bytes)) => {
                output::bytes(&bytes)?;
                output::flush()?;
            }
            Some(Output::Stderr(bytes)) => output::error_bytes(&bytes)?,
            Some(Output::ExitCode(code)) => return u8::try_from(code).context("exit code of the command"),
            Some(Output::Started(_)) => return Ok(0),
            None => {}
        }
    }
    bail!("the daemon ended before it told the command's exit code")
}

/// The daemon says the code that a shell would give, where there is one.
pub fn not_started(error: anyhow::Error) -> Result<u8> {
    let code = error.downcast_ref::<Refusal>().and_then(|refusal| refusal.exec_code);
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => {
            eprintln!("berth: {error:#}");
            Ok(code)
        }
        None => Err(error),
    }
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
