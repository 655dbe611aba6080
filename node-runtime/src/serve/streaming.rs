//! The streaming process of this daemon: started on first use or when its settings change, asked for nothing, answered.
//!
//! Owns: its start, and the daemon's half of `berth_streaming::protocol`. Must not: touch a session's bytes. The process outlives the
//! daemon; one that ends by itself is started again at the next use.
use berth_cri::StreamingUrl;
use berth_engine::{Begun, Engine, Session, SessionStreams, TerminalSize};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use berth_oci::channel::Channel;
use berth_oci::process::{Process, Start};
use berth_settings::Streaming as Settings;
use berth_streaming::protocol::{self, CHANNEL_FD, Kind, MonitorPlace, Refusal, Reply, Request, Started, Streams};
use berth_sys::socket;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot};
use tokio::task::AbortHandle;

/// The field that problems are told under.
const FIELD: &str = "spec.runtime.streaming";
/// How long the process may take until it listens. A fixed port may be held by the former daemon's process for a moment.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to end when it has no session.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long settings that no process could be started with are not tried again while a former process serves.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The process, as the CRI's calls see it.
pub struct Streaming {
    engine: Arc<Engine>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Processes that serve their last sessions.
    retired: Vec<Running>,
    /// Settings that no process could be started with, and since when that is known.
    refused: Option<(Settings, Instant)>,
}

struct Running {
    base: String,
    /// What it was started with.
    settings: Settings,
    process: Process,
    conversation: AbortHandle,
}

impl Running {
    /// Whether a process with these settings needs the port that this one has.
    fn excludes(&self, wanted: &Settings) -> bool {
        wanted.bind.port() != 0 && wanted.bind.port() == self.settings.bind.port()
    }
}

/// Whether one process serves both; how long a token is good is not its concern.
fn alike(one: &Settings, other: &Settings) -> bool {
    (one.bind, &one.tls) == (other.bind, &other.tls)
}

impl Streaming {
    /// Starts nothing yet.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, state: Mutex::default() }
    }

    /// Hangs up, as the daemon's end does, and waits for the process of a daemon without pods to end.
    pub async fn stop(&self) {
        let mut state = self.state.lock().await;
        let all: Vec<Running> = state.running.take().into_iter().chain(state.retired.drain(..)).collect();
        all.iter().for_each(|one| one.conversation.abort());
        for Running { process, .. } in all {
            if tokio::time::timeout(STOP_LIMIT, process.ended()).await.is_err() {
                tracing::warn!(pid = process.pid, "the streaming process of a daemon without pods is killed");
                process.kill();
                process.ended().await;
            }
        }
    }

    /// Has a process with the settings that count now, where they are others than before: whoever changes them is told whether there can be
    /// one, and what was wrong with the former ones is over.
    pub async fn follow(&self, before: &Settings, now: &Settings) {
        if !alike(before, now) {
            // Told already, in what is said of the settings.
            let _ = self.base().await;
        }
    }

    async fn start(&self, settings: &Settings) -> Result<Running> {
        let (ours, theirs) = socket::pair().context(|| "socket pair for the streaming process")?;
        let cgroup = self.engine.streaming_cgroup().await?;
        let args = arguments(settings)?;
        let spawn = move || {
            let program = File::open("/proc/self/exe").context(|| "own executable")?;
            let null = File::options().read(true).write(true).open("/dev/null").context(|| "/dev/null")?;
            let errors = std::io::stderr();
            let fds = [(null.as_fd(), 0), (null.as_fd(), 1), (errors.as_fd(), 2), (theirs.as_fd(), CHANNEL_FD)];
            let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
            Start { program: program.as_fd(), args: &args, fds: &fds, cgroup: &cgroup }.spawn()
        };
        let process = tokio::task::spawn_blocking(spawn).await.map_err(|e| Error::internal(e.to_string()))?;
        let process = process.context(|| "start the streaming process")?;
        let (told, listening) = oneshot::channel();
        let channel = Arc::new(Channel::new(ours).context(|| "socket of the streaming process")?);
        let conversation = tokio::spawn(serve(self.engine.clone(), channel, told)).abort_handle();
        let Ok(Ok(address)) = tokio::time::timeout(START_LIMIT, listening).await else {
            process.kill();
            let problem = format!(
                "the streaming process does not listen on {} (spec.runtime.streaming.bind); the daemon's log says why",
                settings.bind
            );
            return Err(Error::new(ErrorKind::Unavailable, problem));
        };
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        tracing::info!(%address, pid = process.pid, "the streaming process listens");
        Ok(Running { base: format!("{scheme}://{address}"), settings: settings.clone(), process, conversation })
    }

    /// Puts a process with the wanted settings in the place of the running one. On an error the running one stays, or one with its settings
    /// is started again where the port had to be given up.
    async fn renew(&self, state: &mut State, wanted: &Settings) -> Result<()> {
        state.retired.retain(|one| one.process.lives());
        let Some(former) = state.running.take_if(|r| !r.process.lives() || r.excludes(wanted)) else {
            let started = self.start(wanted).await?;
            if let Some(former) = state.running.replace(started) {
                retire(&former);
                state.retired.push(former);
            }
            return Ok(());
        };
        tracing::info!(pid = former.process.pid, "the streaming process ends with its last session, for another one");
        former.conversation.abort();
        let settings = former.settings.clone();
        state.retired.push(former);
        match self.start(wanted).await {
            Ok(started) => {
                state.running = Some(started);
                Ok(())
            }
            Err(e) if alike(&settings, wanted) => Err(e),
            Err(e) => {
                match self.start(&settings).await {
                    Ok(again) => state.running = Some(again),
                    Err(e) => tracing::error!(error = %e, "nor does it start with the former settings"),
                }
                Err(e)
            }
        }
    }
}

/// Leaves a process whose settings are the former ones to its sessions. URLs that were given out lead to it until they expire.
fn retire(former: &Running) {
    let pid = former.process.pid;
    tracing::info!(pid, "the streaming process ends with its last session: its settings have changed");
    let (conversation, seconds) = (former.conversation.clone(), former.settings.token_seconds);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        conversation.abort();
    });
}

fn arguments(settings: &Settings) -> Result<Vec<CString>> {
    let mut words = vec!["berth".to_owned(), "streaming".into(), "--bind".into(), settings.bind.to_string()];
    if let Some((cert, key)) = &settings.tls {
        let path = |path: &std::path::Path| path.display().to_string();
        words.extend(["--tls-cert".into(), path(cert), "--tls-key".into(), path(key)]);
    }
    let text = |word| CString::new(word).map_err(|_| Error::invalid("spec.runtime.streaming", "has a zero byte"));
    words.into_iter().map(text).collect()
}

#[tonic::async_trait]
impl StreamingUrl for Streaming {
    async fn base(&self) -> Result<String> {
        let wanted = self.engine.settings().streaming.clone();
        let mut state = self.state.lock().await;
        let State { running, refused, .. } = &mut *state;
        if let Some(running) = running.as_ref().filter(|r| r.process.lives()) {
            if alike(&running.settings, &wanted) {
                if refused.take().is_some() {
                    self.engine.standing().report(FIELD, None);
                }
                return Ok(running.base.clone());
            }
            if refused.as_ref().is_some_and(|(what, since)| alike(what, &wanted) && since.elapsed() < TRY_AGAIN) {
                return Ok(running.base.clone());
            }
        }
        let failed = self.renew(&mut state, &wanted).await.err();
        let problem = failed.as_ref().map(|e| e.message().to_owned());
        if let Some(problem) = &problem {
            tracing::error!(field = FIELD, problem, "a setting cannot be applied");
        }
        state.refused = problem.as_ref().map(|_| (wanted, Instant::now()));
        self.engine.standing().report(FIELD, problem);
        match (state.running.as_ref(), failed) {
            // Sessions are served as before when the settings are bad.
            (Some(running), _) => Ok(running.base.clone()),
            (None, failed) => Err(failed.unwrap_or_else(|| Error::internal("there is no streaming process"))),
        }
    }
}

/// Answers until the process ends.
async fn serve(engine: Arc<Engine>, channel: Arc<Channel>, listening: oneshot::Sender<SocketAddr>) {
    let mut buffer = vec![0; protocol::MAX_MESSAGE];
    let mut listening = Some(listening);
    loop {
        let length = match channel.recv(&mut buffer).await {
            Ok((length, _)) if length > 0 => length,
            _ => return tracing::info!("the streaming process has ended"),
        };
        match protocol::decode::<Request>(&buffer[..length]) {
            Ok(Request::Listening { address }) => {
                if let Some(tell) = listening.take() {
                    // Whoever waited may have given up.
                    let _ = tell.send(address);
                }
            }
            Ok(request) => {
                let (engine, channel) = (engine.clone(), channel.clone());
                tokio::spawn(async move { answer(&engine, &channel, request).await });
            }
            Err(e) => return tracing::error!(error = %e, "the streaming process is not understood"),
        }
    }
}

async fn answer(engine: &Arc<Engine>, channel: &Channel, request: Request) {
    let (reply, fds) = match request {
        Request::Take { tag, token, kind } => (take(engine, tag, &token, kind), Vec::new()),
        Request::Start { tag, token, size } => start(engine, tag, &token, size).await,
        Request::Abandon { token } => return engine.abandon_session(&token),
        Request::Listening { .. } => return,
    };
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let sent = match protocol::encode(&reply) {
        Ok(bytes) => channel.send(&bytes, &fds).await.map_err(Error::from),
        Err(e) => Err(e),
    };
    if let Err(e) = sent {
        tracing::warn!(error = %e, "the streaming process does not take its answer");
    }
}

fn take(engine: &Engine, tag: u32, token: &str, kind: Kind) -> Reply {
    let unknown = || Reply::Refused {
        tag,
        refusal: Refusal::NotFound,
        message: "this URL is not known: it was used already, it has expired, or the runtime has been restarted since"
            .into(),
    };
    let Some(session) = engine.take_session(token) else { return unknown() };
    if kind != kind_of(&session) {
        engine.abandon_session(token);
        return unknown();
    }
    match granted(engine, session) {
        Ok(session) => Reply::Granted { tag, session },
        Err(e) => {
            engine.abandon_session(token);
            refused(tag, &e)
        }
    }
}

fn kind_of(session: &Session) -> Kind {
    match session {
        Session::Exec { .. } => Kind::Exec,
        Session::Attach { .. } => Kind::Attach,
        Session::PortForward { .. } => Kind::PortForward,
    }
}

fn granted(engine: &Engine, session: Session) -> Result<protocol::Session> {
    let (pod, directory) = engine.session_monitor(&session)?;
    let pod = pod.as_str().to_owned();
    Ok(match session {
        Session::Exec { streams, .. } => {
            protocol::Session::Exec { streams: wire_streams(streams), monitor: MonitorPlace { pod, directory } }
        }
        Session::Attach { streams, .. } => {
            protocol::Session::Attach { streams: wire_streams(streams), monitor: MonitorPlace { pod, directory } }
        }
        Session::PortForward { ports, .. } => protocol::Session::PortForward { pod, ports },
    })
}

fn wire_streams(streams: SessionStreams) -> Streams {
    let SessionStreams { stdin, stdout, stderr, tty } = streams;
    Streams { stdin, stdout, stderr, tty }
}

async fn start(engine: &Arc<Engine>, tag: u32, token: &str, size: Option<protocol::Size>) -> (Reply, Vec<OwnedFd>) {
    let size = size.map(|size| TerminalSize { rows: size.rows, cols: size.cols });
    let (started, fds) = match engine.begin_session(token, size).await {
        Ok(Begun::Exec { task, fds }) => (Started::Exec { task }, fds),
        Ok(Begun::Attach { task, fds, stdin, tty, stdin_once }) => {
            (Started::Attach { task, stdin, tty, stdin_once }, fds)
        }
        Ok(Begun::PortForward { namespace }) => (Started::PortForward, vec![namespace]),
        Err(e) => return (refused(tag, &e), Vec::new()),
    };
    (Reply::Started { tag, started }, fds)
}

fn refused(tag: u32, error: &Error) -> Reply {
    let refusal = match (error.exec_code(), error.kind()) {
        (Some(code), _) => Refusal::Command { code },
        (None, ErrorKind::NotFound) => Refusal::NotFound,
        (None, ErrorKind::FailedPrecondition) => Refusal::State,
        (None, _) => Refusal::Internal,
    };
    Reply::Refused { tag, refusal, message: error.to_string() }
}
