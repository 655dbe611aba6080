//! Exec: a command with its streams over one call. A client that goes away ends the command.
use berth_engine::{Engine, ExecOverrides, ExecRequest, ExecSession, ExecStreams, RunningExec, TerminalSize};
use berth_model::Error;
use berth_oci::pipes::{reader, writer};
use berth_oci::terminal::Terminal;
use berth_proto::node::exec_input::Input;
use berth_proto::node::exec_output::Output;
use berth_proto::{node as wire, status};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

/// Chunks that may wait for a slow reader; then the command's own writes wait.
const BACKLOG: usize = 16;
const CHUNK: usize = 32 * 1024;
/// How long output is waited for after the command has ended.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_millis(500);

pub(crate) type Tell = mpsc::Sender<Result<wire::ExecOutput, Status>>;

pub(crate) async fn call(
    engine: Arc<Engine>,
    mut input: Streaming<wire::ExecInput>,
) -> Result<BoxStream<wire::ExecOutput>, Status> {
    let first = input.message().await?.and_then(|m| m.input);
    let Some(Input::Start(start)) = first else {
        return Err(status(Error::invalid("input", "the first message must be a start")));
    };
    let terminal = start.tty.then(|| terminal_size(start.rows, start.cols));
    let overrides = ExecOverrides {
        env: start.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
        working_dir: start.working_dir,
        user: start.user,
        detached: start.detach,
    };
    let (container, command) = (start.container_id, start.command);
    let request = ExecRequest { container, command, terminal, stdin: start.stdin, overrides };
    let exec = engine.exec(request).await.map_err(status)?;
    if start.detach {
        return Ok(Box::pin(tokio_stream::once(Ok(output(Output::Started(true))))));
    }
    let (tell, outputs) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        if let Err(e) = pump(exec, input, tell.clone()).await {
            let _ = tell.send(Err(status(e))).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(outputs)))
}

/// Moves bytes both ways until the command has ended and its output is told.
async fn pump(exec: RunningExec, input: Streaming<wire::ExecInput>, tell: Tell) -> Result<(), Error> {
    let RunningExec { session, streams, end } = exec;
    let mut copies = tokio::task::JoinSet::new();
    let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> = match streams {
        ExecStreams::None => None,
        ExecStreams::Terminal(master) => {
            let (read, write) = Terminal::split(master)?;
            copies.spawn(copy(read, tell.clone(), Output::Stdout));
            Some(Box::new(write))
        }
        ExecStreams::Pipes { stdin, stdout, stderr } => {
            copies.spawn(copy(reader(stdout)?, tell.clone(), Output::Stdout));
            copies.spawn(copy(reader(stderr)?, tell.clone(), Output::Stderr));
            stdin.map(writer).transpose()?.map(|w| Box::new(w) as Box<_>)
        }
    };
    let mut end = std::pin::pin!(end.wait());
    let exit = tokio::select! {
        exit = end.as_mut() => exit?,
        left = feed(&session, input, stdin) => match left {
            // The client is gone. What it started does not go on without it.
            Left::Gone => {
                session.kill().await?;
                return Ok(());
            }
            // The copies go on, and throw away what they read.
            Left::Detached => {
                let _ = tell.send(Ok(output(Output::Started(true)))).await;
                drop(tell);
                end.as_mut().await?;
                return Ok(());
            }
        },
    };
    let drained = async { while copies.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_LIMIT, drained).await;
    let _ = tell.send(Ok(output(Output::ExitCode(exit.code)))).await;
    Ok(())
}

/// How a client leaves.
enum Left {
    Gone,
    Detached,
}

/// Feeds what the client sends; returns when the client leaves.
async fn feed(
    session: &ExecSession,
    mut input: Streaming<wire::ExecInput>,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
) -> Left {
    loop {
        match input.message().await.map(|m| m.and_then(|m| m.input)) {
            Ok(Some(Input::Stdin(bytes))) => {
                if let Some(writer) = &mut stdin
                    && writer.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Ok(Some(Input::StdinClosed(_))) => stdin = None,
            Ok(Some(Input::Resize(size))) => {
                if let Err(e) = session.resize(terminal_size(size.rows, size.cols)).await {
                    tracing::debug!(error = %e, "terminal is not resized");
                }
            }
            Ok(Some(Input::Detach(_))) => return Left::Detached,
            Ok(Some(Input::Start(_))) => {}
            // The client has said all it wants to say and still listens.
            Ok(None) => std::future::pending().await,
            Err(_) => return Left::Gone,
        }
    }
}

pub(crate) async fn copy(mut from: impl AsyncRead + Unpin, tell: Tell, wrap: fn(Vec<u8>) -> Output) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(n) = from.read(&mut chunk).await {
        if n == 0 {
            return;
        }
        // Where nobody listens any more, the writer must not be stopped by a full pipe.
        let _ = tell.send(Ok(output(wrap(chunk[..n].to_vec())))).await;
    }
}

pub(crate) fn terminal_size(rows: u32, cols: u32) -> TerminalSize {
    let cut = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    TerminalSize { rows: cut(rows), cols: cut(cols) }
}

pub(crate) fn output(output: Output) -> wire::ExecOutput {
    wire::ExecOutput { output: Some(output) }
}
