//! All streams of one exec or attach at work.
//!
//! Owns: the tasks that copy, their end. Must not: know why the session ends.
use super::pump;
use crate::protocol::Size;
use crate::streams::{Line, Reader, Stdin, Writer};
use berth_model::{Error, Result, ResultExt};
use berth_monitor_client::pipes;
use berth_monitor_client::terminal::Terminal;
use berth_sys::pty;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The process's side.
pub struct Process {
    /// To its stdin.
    pub stdin: Option<Writer>,
    /// From its stdout and stderr.
    pub outputs: Vec<Reader>,
    /// Its terminal, for the size.
    pub terminal: Option<OwnedFd>,
}

impl Process {
    /// A process with a terminal whose output is read from the master too.
    pub fn on_terminal(master: OwnedFd) -> Result<Self> {
        let terminal = master.try_clone().context(|| "terminal")?;
        let (read, write) = Terminal::split(master)?;
        Ok(Self { stdin: Some(Box::new(write)), outputs: vec![Box::new(read)], terminal: Some(terminal) })
    }

    /// A process with a terminal whose output comes as a copy.
    pub fn on_copied_terminal(master: OwnedFd, copy: OwnedFd) -> Result<Self> {
        let whole = Self::on_terminal(master)?;
        Ok(Self { outputs: vec![Box::new(pipes::reader(copy)?)], ..whole })
    }

    /// A process on pipes.
    pub fn on_pipes(stdin: Option<OwnedFd>, outputs: Vec<OwnedFd>) -> Result<Self> {
        let stdin = stdin.map(pipes::writer).transpose()?.map(|pipe| Box::new(pipe) as Writer);
        let boxed = |fd| Ok(Box::new(pipes::reader(fd)?) as Reader);
        let outputs = outputs.into_iter().map(boxed).collect::<Result<_>>()?;
        Ok(Self { stdin, outputs, terminal: None })
    }
}

/// `N` descriptors, no more and no fewer.
pub fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N]> {
    let fds: Result<[OwnedFd; N], Vec<OwnedFd>> = fds.try_into();
    fds.map_err(|fds| Error::internal(format!("the daemon sent {} descriptors instead of {N}", fds.len())))
}

/// The client's side.
pub struct Client {
    /// What it sends.
    pub stdin: Option<Stdin>,
    /// What it reads.
    pub stdout: Option<Writer>,
    /// What it reads.
    pub stderr: Option<Writer>,
    /// Sizes.
    pub size: watch::Receiver<Option<Size>>,
}

/// The tasks. Dropping them ends them.
pub struct Copying {
    input: Option<AbortOnDropHandle<()>>,
    outputs: JoinSet<()>,
    _sizes: Option<AbortOnDropHandle<()>>,
    exited: CancellationToken,
}

impl Copying {
    /// Begins to copy.
    pub fn start(client: Client, process: Process, line: &Line) -> Self {
        let exited = CancellationToken::new();
        let spawn = |task| AbortOnDropHandle::new(tokio::spawn(task));
        let input = match (client.stdin, process.stdin) {
            (Some(from), Some(to)) => Some(AbortOnDropHandle::new(tokio::spawn(pump::input(from, to, line.clone())))),
            _ => None,
        };
        let mut outputs = JoinSet::new();
        let mut clients = [client.stdout, client.stderr].into_iter();
        for (from, to) in process.outputs.into_iter().zip(&mut clients) {
            outputs.spawn(pump::output(from, to, exited.clone(), line.clone()));
        }
        // A process with a terminal has no stderr.
        for mut unused in clients.flatten() {
            outputs.spawn(async move { drop(unused.shutdown().await) });
        }
        let sizes = process.terminal.map(|terminal| spawn(resize(terminal, client.size)));
        Self { input, outputs, _sizes: sizes, exited }
    }

    /// Resolves when the client has ended its stdin, or the process has closed it; never if there is none.
    pub async fn input_ended(&mut self) {
        match &mut self.input {
            Some(input) => {
                let _ = input.await;
                self.input = None;
            }
            None => std::future::pending().await,
        }
    }

    /// The process has ended: resolves when the client has all of its output.
    pub async fn drain(&mut self) {
        self.exited.cancel();
        while self.outputs.join_next().await.is_some() {}
    }
}

async fn resize(terminal: OwnedFd, mut sizes: watch::Receiver<Option<Size>>) {
    loop {
        let size = *sizes.borrow_and_update();
        if let Some(Size { rows, cols }) = size
            && let Err(e) = pty::set_size(terminal.as_fd(), rows, cols)
        {
            tracing::debug!("size of a terminal: {e}");
        }
        if sizes.changed().await.is_err() {
            return;
        }
    }
}
