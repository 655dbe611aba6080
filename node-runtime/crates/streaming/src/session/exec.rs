//! Exec: a command's streams, its end, and what becomes of it when its client vanishes.
//!
//! Owns: the order of these. Must not: start the command; the daemon does.
use super::copying::{Client, Copying, Process, exactly};
use super::monitors::Ends;
use super::{Context, first_size, not_begun};
use crate::protocol::{MonitorPlace, Started, Streams};
use crate::streams::{Finish, RemoteStreams, Writer};
use crate::wire::status::Outcome;
use berth_model::{Error, Result};
use berth_monitor_api::frame::Exit;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
/// How long a command whose client is gone may take to end after SIGHUP.
const GRACE: Duration = Duration::from_secs(5);

/// Serves one session. Returns when it is over.
pub async fn exec(context: Context, streams: Streams, place: MonitorPlace, remote: RemoteStreams) {
    let RemoteStreams { stdin, mut stdout, mut stderr, mut size, finish } = remote;
    let ends = match context.monitors.ends(&place).await {
        Ok(ends) => ends,
        Err(e) => {
            context.daemon.abandon(&context.token).await;
            return finish.tell(&Outcome::Failed(format!("exec: {e}"))).await;
        }
    };
    let first = if streams.tty { first_size(&mut size).await } else { None };
    if context.line.is_cut() {
        return context.daemon.abandon(&context.token).await;
    }
    // Not to be given up half-way: what has begun must be known, to be ended.
    let (task, fds) = match context.daemon.start(&context.token, first).await {
        Ok((Started::Exec { task }, fds)) => (task, fds),
        Ok((other, _)) => {
            return finish.tell(&Outcome::Failed(format!("exec: the daemon started {other:?}"))).await;
        }
        Err(denied) => {
            let outcome = not_begun("exec", denied);
            tokio::select! {
                () = explain(&outcome, streams.tty, [&mut stdout, &mut stderr]) => {}
                () = context.line.gone() => {}
            }
            return finish.tell(&outcome).await;
        }
    };
    let client = Client { stdin, stdout, stderr, size };
    match process(fds, streams) {
        Ok(process) => run(&context, ends, &task, Copying::start(client, process, &context.line), finish).await,
        Err(e) => {
            let mut ends = ends;
            hang_up(&mut ends, &task).await;
            finish.tell(&Outcome::Failed(format!("exec: {e}"))).await;
        }
    }
}

fn process(fds: Vec<OwnedFd>, streams: Streams) -> Result<Process> {
    if streams.tty {
        let [master] = exactly(fds)?;
        return Process::on_terminal(master);
    }
    let mut fds = fds.into_iter();
    let stdin = if streams.stdin { fds.next() } else { None };
    let outputs: [OwnedFd; 2] = exactly(fds.collect())?;
    Process::on_pipes(stdin, outputs.into())
}

async fn run(context: &Context, mut ends: Ends, task: &str, mut copying: Copying, finish: Finish) {
    let end = tokio::select! {
        end = ends.of(task) => Some(end),
        () = context.line.gone() => None,
    };
    let Some(end) = end else {
        // Closes the streams first: most programs end by themselves then.
        drop((copying, finish));
        return hang_up(&mut ends, task).await;
    };
    tokio::select! {
        () = copying.drain() => {}
        () = context.line.gone() => {}
    }
    drop(copying);
    finish.tell(&outcome(end)).await;
}

fn outcome(end: Result<Exit, Error>) -> Outcome {
    match end {
        Ok(exit) => Outcome::of_code(exit.code),
        Err(e) => Outcome::Failed(format!("exec: how the command ended is not known: {e}")),
    }
}

/// Ends a command whose client is gone.
async fn hang_up(ends: &mut Ends, task: &str) {
    for signal in [SIGHUP, SIGKILL] {
        if let Err(e) = ends.monitor().signal(task, signal).await {
            // Usually it has ended already.
            tracing::debug!("{e}");
        }
        match timeout(GRACE, ends.of(task)).await {
            Ok(Ok(_)) => return,
            Ok(Err(e)) => return tracing::debug!("{e}"),
            Err(_) => {}
        }
    }
    tracing::warn!("the command {task} has not ended {} s after SIGKILL", GRACE.as_secs());
}

/// Clients print the code alone; the reason goes where the command's own words would have gone. Ends both streams.
async fn explain(outcome: &Outcome, tty: bool, [stdout, stderr]: [&mut Option<Writer>; 2]) {
    if let Outcome::NotExecuted { why, .. } = outcome {
        let (stream, line) =
            if tty { (&mut *stdout, format!("{why}\r\n")) } else { (&mut *stderr, format!("{why}\n")) };
        if let Some(stream) = stream {
            // Errors are a client that is gone.
            let _ = stream.write_all(line.as_bytes()).await;
        }
    }
    for stream in [stdout, stderr].into_iter().flatten() {
        let _ = stream.shutdown().await;
    }
}
