//! Attach: the streams of a container's first process over one call. A client that goes away ends nothing.
use crate::exec::{DRAIN_LIMIT, Tell, copy, output, terminal_size};
use berth_engine::{Attached, Engine};
use berth_model::{Error, ErrorKind, Result};
use berth_oci::pipes::{reader, writer};
use berth_oci::terminal::Terminal;
use berth_proto::node::attach_input::Input;
use berth_proto::node::exec_output::Output;
use berth_proto::{node as wire, status};
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

/// Chunks that may wait for a slow reader; then this copy of the output waits, not the container.
const BACKLOG: usize = 16;

type Stdin = Box<dyn AsyncWrite + Send + Unpin>;

pub(crate) async fn call(
    engine: Arc<Engine>,
    mut input: Streaming<wire::AttachInput>,
) -> Result<BoxStream<wire::ExecOutput>, Status> {
    let first = input.message().await?.and_then(|m| m.input);
    let Some(Input::Start(start)) = first else {
        return Err(status(Error::invalid("input", "the first message must be a start")));
    };
    let size = (start.rows > 0).then(|| terminal_size(start.rows, start.cols));
    let opened = match start.run {
        true => engine.start_attached(&start.container_id, size).await,
        false => engine.attach(&start.container_id).await,
    };
    let attached = opened.map_err(status)?;
    if start.stdin && !attached.stdin {
        let problem = "the container has no stdin; it was made without `stdin: true`";
        return Err(status(Error::new(ErrorKind::FailedPrecondition, problem)));
    }
    // It may have ended by now: then its last words and its code are what the client came for.
    if let Some(size) = size.filter(|_| attached.tty && !start.run)
        && let Err(e) = engine.resize_container(&attached.id, size).await
    {
        tracing::debug!(container = %attached.id, error = %e, "terminal is not resized");
    }
    let (tell, outputs) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        if let Err(e) = pump(&engine, attached, input, start.stdin, tell.clone()).await {
            let _ = tell.send(Err(status(e))).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(outputs)))
}

async fn pump(
    engine: &Arc<Engine>,
    attached: Attached,
    input: Streaming<wire::AttachInput>,
    wants_stdin: bool,
    tell: Tell,
) -> Result<()> {
    let Attached { id, fds, stdin, tty, stdin_once } = attached;
    let mut copies = JoinSet::new();
    let mut fds = fds.into_iter();
    let missing = || Error::internal("the monitor has not handed over all streams of the container");
    let writer: Option<Stdin> = if tty {
        let (_, write) = Terminal::split(fds.next().ok_or_else(missing)?)?;
        copies.spawn(copy(reader(fds.next().ok_or_else(missing)?)?, tell.clone(), Output::Stdout));
        Some(Box::new(write))
    } else {
        let first = if stdin { fds.next() } else { None };
        copies.spawn(copy(reader(fds.next().ok_or_else(missing)?)?, tell.clone(), Output::Stdout));
        copies.spawn(copy(reader(fds.next().ok_or_else(missing)?)?, tell.clone(), Output::Stderr));
        first.map(writer).transpose()?.map(|w| Box::new(w) as Stdin)
    };
    let writer = writer.filter(|_| wants_stdin);
    let exit = tokio::select! {
        exit = engine.wait_container(id.as_str()) => exit?,
        () = feed(engine, &id, input, writer, stdin_once && wants_stdin) => return Ok(()),
    };
    let drained = async { while copies.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_LIMIT, drained).await;
    let _ = tell.send(Ok(output(Output::ExitCode(exit.code)))).await;
    Ok(())
}

/// Feeds what the client sends; returns when the client has gone.
async fn feed(
    engine: &Arc<Engine>,
    id: &berth_model::ContainerId,
    mut input: Streaming<wire::AttachInput>,
    mut stdin: Option<Stdin>,
    close: bool,
) {
    loop {
        match input.message().await.map(|m| m.and_then(|m| m.input)) {
            Ok(Some(Input::Stdin(bytes))) => {
                if let Some(writer) = &mut stdin
                    && writer.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Ok(Some(Input::StdinClosed(_))) => {
                stdin = None;
                if close && let Err(e) = engine.close_stdin(id).await {
                    tracing::debug!(container = %id, error = %e, "stdin is not closed");
                }
            }
            Ok(Some(Input::Resize(size))) => {
                if let Err(e) = engine.resize_container(id, terminal_size(size.rows, size.cols)).await {
                    tracing::debug!(error = %e, "terminal is not resized");
                }
            }
            Ok(Some(Input::Start(_))) => {}
            // The client has said all it wants to say and still listens.
            Ok(None) => std::future::pending().await,
            Err(_) => return,
        }
    }
}
