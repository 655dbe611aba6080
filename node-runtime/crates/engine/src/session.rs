//! Tokens of streaming sessions: what a client was promised until it comes for it.
//!
//! Owns: the table of tokens, their single use, expiry and number. Must not: move a byte of a session.
use crate::clock;
use crate::container::exec::{ExecOverrides, ExecRequest, ExecStreams, running};
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::record::PodPhase;
use berth_model::{ContainerId, Error, ErrorKind, NamespaceMode, PodId, Result};
use berth_monitor_api::spec::{CgroupJoin, TerminalSize};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Name of the streaming process's own cgroup.
pub(crate) const STREAMING: &str = "streaming";
/// Most tokens that wait for their client (the kubelet's own server has the same limit).
pub const MAX_TOKENS: usize = 1000;
/// How long a client whose token was taken may take to open its streams; the streaming process itself gives up after 30 s.
const OPENING: Duration = Duration::from_secs(60);

/// Streams that a session carries. With a terminal there is no stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStreams {
    /// To the process.
    pub stdin: bool,
    /// From it.
    pub stdout: bool,
    /// From it.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// A command in a container.
    Exec {
        /// The container.
        container: ContainerId,
        /// Program and arguments.
        command: Vec<String>,
        /// Its streams.
        streams: SessionStreams,
    },
    /// The streams of a container's main process.
    Attach {
        /// The container.
        container: ContainerId,
        /// The streams that are wanted.
        streams: SessionStreams,
    },
    /// Connections to ports of a pod.
    PortForward {
        /// The pod.
        pod: PodId,
        /// Ports that the call named.
        ports: Vec<u16>,
    },
}

impl Session {
    /// Its kind, as figures name it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "port_forward",
        }
    }
}

/// A session that has begun.
#[derive(Debug)]
pub enum Begun {
    /// A command runs.
    Exec {
        /// Task of the pod's monitor.
        task: String,
        /// The terminal's master, or stdin (if wanted), stdout, stderr.
        fds: Vec<OwnedFd>,
    },
    /// Streams of a main process.
    Attach {
        /// Task of the pod's monitor.
        task: String,
        /// With a terminal: its master, a copy of its output. Without: stdin if `stdin`, copies of stdout and stderr.
        fds: Vec<OwnedFd>,
        /// Whether the first is stdin.
        stdin: bool,
        /// Whether the process has a terminal.
        tty: bool,
        /// Whether stdin is to be closed with this session.
        stdin_once: bool,
    },
    /// The pod's network namespace.
    PortForward {
        /// It.
        namespace: OwnedFd,
    },
}

#[derive(Debug)]
struct Entry {
    session: Session,
    taken: bool,
    until: Instant,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Entry>>);

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, session: Session, token: String, limit: Duration) -> Result<String> {
        let now = Instant::now();
        let mut table = self.table();
        table.retain(|_, entry| entry.until > now);
        if table.len() >= MAX_TOKENS {
            let problem = format!(
                "{MAX_TOKENS} streaming sessions wait for their clients, which is the limit; the oldest expire within {} s",
                limit.as_secs()
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, problem));
        }
        table.insert(token.clone(), Entry { session, taken: false, until: now + limit });
        Ok(token)
    }

    /// Tokens that wait for their client.
    pub(crate) fn waiting(&self) -> u64 {
        let now = Instant::now();
        let waiting = self.table().values().filter(|entry| !entry.taken && entry.until > now).count();
        u64::try_from(waiting).unwrap_or(u64::MAX)
    }

    fn take(&self, token: &str) -> Option<Session> {
        let now = Instant::now();
        let mut table = self.table();
        let entry = table.get_mut(token).filter(|entry| !entry.taken && entry.until > now)?;
        (entry.taken, entry.until) = (true, now + OPENING);
        Some(entry.session.clone())
    }

    fn finish(&self, token: &str) -> Option<Session> {
        let mut table = self.table();
        table.get(token).filter(|entry| entry.taken)?;
        table.remove(token).map(|entry| entry.session)
    }
}

impl Engine {
    /// Promises a command; [`Engine::begin_session`] runs it. Gives the token. Errors: `NotFound`; `FailedPrecondition` when the
    /// container does not run; `InvalidArgument`; `ResourceExhausted` when too many tokens are open.
    pub fn open_exec(&self, container: &str, command: Vec<String>, streams: SessionStreams) -> Result<String> {
        if command.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("cmd", "must name a program"));
        }
        check_streams(streams)?;
        let container = self.running_container(container)?;
        self.promise(Session::Exec { container, command, streams })
    }

    /// Promises the streams of a container's main process. Errors as [`Engine::open_exec`].
    pub fn open_attach(&self, container: &str, streams: SessionStreams) -> Result<String> {
        check_streams(streams)?;
        let container = self.running_container(container)?;
        self.promise(Session::Attach { container, streams })
    }

    /// Promises connections to a pod. Errors as [`Engine::open_exec`].
    pub fn open_port_forward(&self, pod: &str, ports: Vec<u16>) -> Result<String> {
        let pod = self.ready_pod(pod)?;
        self.promise(Session::PortForward { pod: pod.id.clone(), ports })
    }

    /// The session behind a token, which is used up by this. `None` for one that was never given, is used or has expired.
    pub fn take_session(&self, token: &str) -> Option<Session> {
        self.sessions.take(token)
    }

    /// Forgets a session that was taken and will not begin.
    pub fn abandon_session(&self, token: &str) {
        self.sessions.finish(token);
    }

    /// Where the monitor of a session's pod is spoken to: the pod, and its runtime directory.
    pub fn session_monitor(&self, session: &Session) -> Result<(PodId, PathBuf)> {
        let pod = match session {
            Session::Exec { container, .. } | Session::Attach { container, .. } => {
                self.table.container(container.as_str())?.0
            }
            Session::PortForward { pod, .. } => self.table.pod(pod.as_str())?,
        };
        let directory = self.paths.pod_dir(&pod.id).path().to_owned();
        Ok((pod.id.clone(), directory))
    }

    /// Begins a session that was taken: runs the command, or opens what is to be streamed.
    pub async fn begin_session(self: &Arc<Self>, token: &str, size: Option<TerminalSize>) -> Result<Begun> {
        let session = self.sessions.finish(token).ok_or_else(|| Error::not_found("session", "of this token"))?;
        let kind = session.kind();
        let begun = self.begin(session, size).await?;
        self.metrics.node().session(kind);
        Ok(begun)
    }

    async fn begin(self: &Arc<Self>, session: Session, size: Option<TerminalSize>) -> Result<Begun> {
        match session {
            Session::Exec { container, command, streams } => {
                self.begin_command(&container, command, streams, size).await
            }
            Session::Attach { container, .. } => self.begin_attach(&container).await,
            Session::PortForward { pod, .. } => self.begin_port_forward(&pod).await,
        }
    }

    async fn begin_command(
        self: &Arc<Self>,
        container: &ContainerId,
        command: Vec<String>,
        streams: SessionStreams,
        size: Option<TerminalSize>,
    ) -> Result<Begun> {
        let terminal = streams.tty.then(|| size.unwrap_or(TerminalSize { rows: 0, cols: 0 }));
        let container = container.as_str().to_owned();
        let running = self
            .exec(ExecRequest {
                container,
                command,
                terminal,
                stdin: streams.stdin,
                overrides: ExecOverrides::default(),
            })
            .await?;
        let fds = match running.streams {
            ExecStreams::None => Vec::new(),
            ExecStreams::Terminal(master) => vec![master],
            ExecStreams::Pipes { stdin, stdout, stderr } => stdin.into_iter().chain([stdout, stderr]).collect(),
        };
        Ok(Begun::Exec { task: running.session.task_id().to_owned(), fds })
    }

    async fn begin_attach(&self, id: &ContainerId) -> Result<Begun> {
        let (pod, id) = self.table.container(id.as_str())?;
        let config = &pod.container(&id)?.config;
        let (tty, stdin_once) = (config.tty, config.stdin_once);
        let fds = pod.monitor()?.attach(id.as_str()).await?;
        let stdin = tty || fds.len() > 2;
        Ok(Begun::Attach { task: id.as_str().to_owned(), fds, stdin, tty, stdin_once })
    }

    async fn begin_port_forward(&self, id: &PodId) -> Result<Begun> {
        let pod = self.ready_pod(id.as_str())?;
        let on_node = pod.record().config.security.namespaces.network == NamespaceMode::Node;
        let dir = self.paths.pod_dir(&pod.id);
        let namespace = blocking(move || dir.open_network(on_node)).await?;
        Ok(Begun::PortForward { namespace })
    }

    /// The cgroup that the streaming process is to be started in.
    pub async fn streaming_cgroup(&self) -> Result<CgroupJoin> {
        Ok(self.cgroups.join(&self.helper_group(STREAMING).await?))
    }

    fn promise(&self, session: Session) -> Result<String> {
        let limit = Duration::from_secs(self.settings().streaming.token_seconds);
        self.sessions.open(session, clock::token()?, limit)
    }

    fn ready_pod(&self, id: &str) -> Result<Arc<Pod>> {
        let pod = self.table.pod(id)?;
        match pod.record().phase {
            PodPhase::Ready => Ok(pod),
            _ => Err(Error::new(ErrorKind::FailedPrecondition, format!("pod {} is not ready", pod.id.short()))),
        }
    }

    fn running_container(&self, id: &str) -> Result<ContainerId> {
        let (pod, id) = self.table.container(id)?;
        running(&pod, &id).map(|_| id)
    }
}

fn check_streams(streams: SessionStreams) -> Result<()> {
    if streams.tty && streams.stderr {
        return Err(Error::invalid("stderr", "must be false with tty: a terminal has one output, stdout"));
    }
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Error::invalid("stdin, stdout, stderr", "one of them must be true"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::PortForward { pod: PodId::from_random([7; 32]), ports: vec![80] }
    }

    #[test]
    fn a_token_is_good_once_and_begins_once() {
        let sessions = Sessions::default();
        let token = sessions.open(session(), "t".into(), Duration::from_secs(60)).unwrap();
        assert!(sessions.finish(&token).is_none(), "begun without being taken");
        assert_eq!(sessions.take(&token), Some(session()));
        assert!(sessions.take(&token).is_none(), "taken twice");
        assert_eq!(sessions.finish(&token), Some(session()));
        assert!(sessions.finish(&token).is_none(), "begun twice");
    }

    #[test]
    fn tokens_expire_and_are_limited() {
        let sessions = Sessions::default();
        sessions.open(session(), "old".into(), Duration::ZERO).unwrap();
        assert!(sessions.take("old").is_none());
        for n in 0..MAX_TOKENS {
            sessions.open(session(), format!("t{n}"), Duration::from_secs(60)).unwrap();
        }
        let full = sessions.open(session(), "more".into(), Duration::from_secs(60)).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::ResourceExhausted);
        assert!(sessions.take("t5").is_some());
        assert!(sessions.finish("t5").is_some());
        sessions.open(session(), "more".into(), Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn streams_that_make_no_sense_are_named() {
        let streams = SessionStreams { stdin: false, stdout: true, stderr: true, tty: true };
        assert!(check_streams(streams).unwrap_err().message().contains("stderr"));
        let streams = SessionStreams { stdin: false, stdout: false, stderr: false, tty: false };
        assert!(check_streams(streams).is_err());
    }
}
