//! Attach: copies of a container's output, and its stdin.
//!
//! Owns: the order of things. Must not: end the container, whatever the client does.
use super::copying::{Client, Copying, Process, exactly};
use super::monitors::Ends;
use super::{Context, not_begun};
use crate::protocol::{MonitorPlace, Started, Streams};
use crate::streams::RemoteStreams;
use crate::wire::status::Outcome;
use berth_model::Result;
use std::os::fd::OwnedFd;

/// Serves one session. Returns when it is over.
pub async fn attach(context: Context, streams: Streams, place: MonitorPlace, remote: RemoteStreams) {
    let RemoteStreams { stdin, stdout, stderr, size, finish } = remote;
    let mut ends = match context.monitors.ends(&place).await {
        Ok(ends) => ends,
        Err(e) => {
            context.daemon.abandon(&context.token).await;
            return finish.tell(&Outcome::Failed(format!("attach: {e}"))).await;
        }
    };
    if context.line.is_cut() {
        return context.daemon.abandon(&context.token).await;
    }
    let known = *size.borrow();
    let (started, fds) = match context.daemon.start(&context.token, known).await {
        Ok(started) => started,
        Err(denied) => return finish.tell(&not_begun("attach", denied)).await,
    };
    let Started::Attach { task, stdin: open, tty, stdin_once } = started else {
        return finish.tell(&Outcome::Failed(format!("attach: the daemon started {started:?}"))).await;
    };
    let process = match process(fds, open, tty) {
        Ok(process) => process,
        Err(e) => return finish.tell(&Outcome::Failed(format!("attach: {e}"))).await,
    };
    let client = Client { stdin, stdout, stderr, size };
    let copying = Copying::start(client, process, &context.line);
    let stdin_once = stdin_once && streams.stdin;
    let outcome = run(&context, &mut ends, &task, streams, copying, stdin_once).await;
    finish.tell(&outcome).await;
}

fn process(fds: Vec<OwnedFd>, stdin: bool, tty: bool) -> Result<Process> {
    if tty {
        let [master, copy] = exactly(fds)?;
        return Process::on_copied_terminal(master, copy);
    }
    let mut fds = fds.into_iter();
    let stdin = if stdin { fds.next() } else { None };
    let outputs: [OwnedFd; 2] = exactly(fds.collect())?;
    Process::on_pipes(stdin, outputs.into())
}

async fn run(
    context: &Context,
    ends: &mut Ends,
    task: &str,
    streams: Streams,
    mut copying: Copying,
    stdin_once: bool,
) -> Outcome {
    let monitor = ends.monitor().clone();
    let close = async || {
        if stdin_once && let Err(e) = monitor.close_stdin(task).await {
            // The container may have ended, or its stdin is closed already.
            tracing::debug!("stdin of {task}: {e}");
        }
    };
    let mut input_ended = false;
    let end = loop {
        tokio::select! {
            end = ends.of(task) => break Some(end),
            () = context.line.gone() => break None,
            () = copying.input_ended(), if !input_ended => {
                input_ended = true;
                close().await;
                if !streams.stdout && !streams.stderr {
                    break None;
                }
            }
        }
    };
    match end {
        Some(Ok(_)) => {
            tokio::select! {
                () = copying.drain() => {}
                () = context.line.gone() => {}
            }
            Outcome::Success
        }
        Some(Err(e)) => Outcome::Failed(format!("attach: {e}")),
        None => {
            drop(copying);
            if !input_ended {
                close().await;
            }
            Outcome::Success
        }
    }
}
