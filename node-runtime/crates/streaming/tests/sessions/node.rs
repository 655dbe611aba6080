//! The other ends of the streaming process: a daemon and a monitor that speak the real protocols and run real processes.
use berth_monitor_api::frame::{self, Exit, Reply as MonitorReply, Request as MonitorRequest, Tagged, Task, TaskKind};
use berth_monitor_client::channel::Channel;
use berth_streaming::protocol::{
    self, Kind, MAX_MESSAGE, MonitorPlace, Refusal, Reply, Request, Session, Started, Streams,
};
use berth_streaming::{Listen, Options};
use berth_sys::{pty, socket};
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

pub const POD: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
pub const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
pub const OUTPUT: Streams = Streams { stdin: false, ..ALL };

/// What a token stands for.
pub enum Promise {
    Exec { streams: Streams, command: Vec<String> },
    Refuse { streams: Streams, refusal: Refusal },
    Attach { streams: Streams, task: String, fds: Vec<OwnedFd>, stdin: bool, stdin_once: bool },
    Forward { ports: Vec<u16> },
}

#[derive(Default)]
struct Tasks {
    pids: HashMap<String, u32>,
    ended: HashMap<String, Exit>,
    signals: Vec<(String, i32)>,
    stdin_closed: Vec<String>,
    promises: HashMap<String, Promise>,
    taken: HashMap<String, Promise>,
    abandoned: Vec<String>,
}

struct Shared {
    tasks: Mutex<Tasks>,
    exits: broadcast::Sender<(String, Exit)>,
}

pub struct Node {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _directory: tempfile::TempDir,
    daemon: Option<JoinHandle<()>>,
    pub process: JoinHandle<berth_model::Result<()>>,
}

impl Node {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared { tasks: Mutex::default(), exits: broadcast::channel(1000).0 });
        tokio::spawn(monitor(Arc::clone(&shared), File::open(directory.path()).unwrap()));
        let (ours, theirs) = socket::pair().unwrap();
        let mut options = Options::new(theirs, Listen::Address("127.0.0.1:0".parse().unwrap()));
        change(&mut options);
        let process = tokio::spawn(berth_streaming::run(options));
        let (sender, receiver) = oneshot::channel();
        let place = MonitorPlace { pod: POD.into(), directory: directory.path().into() };
        let daemon = tokio::spawn(daemon(Arc::clone(&shared), Channel::new(ours).unwrap(), sender, place));
        let address = receiver.await.unwrap();
        Self { address, shared, _directory: directory, daemon: Some(daemon), process }
    }

    fn tasks<T>(&self, look: impl FnOnce(&mut Tasks) -> T) -> T {
        look(&mut self.shared.tasks.lock().unwrap())
    }

    pub fn promise(&self, token: &str, promise: Promise) {
        self.tasks(|tasks| tasks.promises.insert(token.into(), promise));
    }

    pub fn exec(&self, token: &str, streams: Streams, script: &str) {
        let command = ["sh", "-c", script].map(String::from).to_vec();
        self.promise(token, Promise::Exec { streams, command });
    }

    /// Runs a container's main process with pipes; what attach hands out are the pipes themselves.
    pub fn container(&self, task: &str, script: &str) -> [OwnedFd; 3] {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let (fds, command) = pipes(command, true);
        run(&self.shared, task, command);
        fds.try_into().unwrap()
    }

    pub fn signals(&self, task: &str) -> Vec<i32> {
        self.tasks(|tasks| tasks.signals.iter().filter(|(id, _)| id == task).map(|(_, signal)| *signal).collect())
    }

    pub fn stdin_closed(&self, task: &str) -> bool {
        self.tasks(|tasks| tasks.stdin_closed.iter().any(|id| id == task))
    }

    pub fn is_abandoned(&self, token: &str) -> bool {
        self.tasks(|tasks| tasks.abandoned.iter().any(|id| id == token))
    }

    pub fn has_ended(&self, task: &str) -> bool {
        self.tasks(|tasks| tasks.ended.contains_key(task))
    }

    pub fn has_begun(&self, task: &str) -> bool {
        self.tasks(|tasks| tasks.pids.contains_key(task))
    }

    /// What SIGKILL of the daemon is to the streaming process.
    pub async fn kill_daemon(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.abort();
        let _ = daemon.await;
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 15 s: {what}");
}

async fn daemon(shared: Arc<Shared>, channel: Channel, address: oneshot::Sender<SocketAddr>, place: MonitorPlace) {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut address = Some(address);
    loop {
        let (length, _) = channel.recv(&mut buffer).await.unwrap();
        if length == 0 {
            return;
        }
        let (reply, fds) = match protocol::decode::<Request>(&buffer[..length]).unwrap() {
            Request::Listening { address: told } => {
                address.take().unwrap().send(told).unwrap();
                continue;
            }
            Request::Take { tag, token, kind } => (take(&shared, tag, token, kind, &place), Vec::new()),
            Request::Start { tag, token, size } => {
                let promise = shared.tasks.lock().unwrap().taken.remove(&token).unwrap();
                start(&shared, tag, &token, promise, size.map(|size| (size.rows, size.cols)))
            }
            Request::Abandon { token } => {
                let mut tasks = shared.tasks.lock().unwrap();
                tasks.taken.remove(&token);
                tasks.abandoned.push(token);
                continue;
            }
        };
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        channel.send(&protocol::encode(&reply).unwrap(), &borrowed).await.unwrap();
    }
}

fn take(shared: &Shared, tag: u32, token: String, kind: Kind, place: &MonitorPlace) -> Reply {
    let mut tasks = shared.tasks.lock().unwrap();
    let session = match (tasks.promises.get(&token), kind) {
        (Some(Promise::Exec { streams, .. } | Promise::Refuse { streams, .. }), Kind::Exec) => {
            Session::Exec { streams: *streams, monitor: place.clone() }
        }
        (Some(Promise::Attach { streams, .. }), Kind::Attach) => {
            Session::Attach { streams: *streams, monitor: place.clone() }
        }
        (Some(Promise::Forward { ports }), Kind::PortForward) => {
            Session::PortForward { pod: POD.into(), ports: ports.clone() }
        }
        _ => {
            let message = "there is no such session".into();
            return Reply::Refused { tag, refusal: Refusal::NotFound, message };
        }
    };
    let promise = tasks.promises.remove(&token).unwrap();
    tasks.taken.insert(token, promise);
    Reply::Granted { tag, session }
}

fn start(
    shared: &Arc<Shared>,
    tag: u32,
    token: &str,
    promise: Promise,
    size: Option<(u16, u16)>,
) -> (Reply, Vec<OwnedFd>) {
    match promise {
        Promise::Exec { streams, command } => {
            let mut process = Command::new(&command[0]);
            process.args(&command[1..]);
            let (fds, process) = if streams.tty { terminal(process, size) } else { pipes(process, streams.stdin) };
            run(shared, token, process);
            (Reply::Started { tag, started: Started::Exec { task: token.into() } }, fds)
        }
        Promise::Refuse { refusal, .. } => {
            (Reply::Refused { tag, refusal, message: "exec: \"nope\": No such file or directory".into() }, Vec::new())
        }
        Promise::Attach { task, fds, stdin, stdin_once, .. } => {
            (Reply::Started { tag, started: Started::Attach { task, stdin, tty: false, stdin_once } }, fds)
        }
        Promise::Forward { .. } => {
            let namespace = File::open("/proc/self/ns/net").unwrap();
            (Reply::Started { tag, started: Started::PortForward }, vec![namespace.into()])
        }
    }
}

fn pipes(mut command: Command, stdin: bool) -> (Vec<OwnedFd>, Command) {
    let mut fds = Vec::new();
    if stdin {
        let (read, write) = std::io::pipe().unwrap();
        command.stdin(Stdio::from(OwnedFd::from(read)));
        fds.push(write.into());
    } else {
        command.stdin(Stdio::null());
    }
    let (read, write) = std::io::pipe().unwrap();
    command.stdout(Stdio::from(OwnedFd::from(write)));
    fds.push(read.into());
    let (read, write) = std::io::pipe().unwrap();
    command.stderr(Stdio::from(OwnedFd::from(write)));
    fds.push(read.into());
    (fds, command)
}

fn terminal(mut command: Command, size: Option<(u16, u16)>) -> (Vec<OwnedFd>, Command) {
    let (master, slave) = pty::open(Path::new("/dev/ptmx")).unwrap();
    if let Some((rows, cols)) = size {
        pty::set_size(master.as_fd(), rows, cols).unwrap();
    }
    command.stdin(Stdio::from(slave.try_clone().unwrap()));
    command.stdout(Stdio::from(slave.try_clone().unwrap()));
    command.stderr(Stdio::from(slave));
    (vec![master], command)
}

/// Runs a task and tells its end.
fn run(shared: &Arc<Shared>, task: &str, mut command: Command) {
    let mut child = command.spawn().unwrap();
    // Its ends of the pipes belong to the process alone.
    drop(command);
    shared.tasks.lock().unwrap().pids.insert(task.into(), child.id());
    let (shared, task) = (Arc::clone(shared), task.to_owned());
    std::thread::spawn(move || {
        let status = child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        let exit =
            Exit { code, signaled: status.signal().is_some(), start_failed: false, oom_kills: 0, finished_at: 0 };
        let mut tasks = shared.tasks.lock().unwrap();
        tasks.pids.remove(&task);
        tasks.ended.insert(task.clone(), exit);
        let _ = shared.exits.send((task, exit));
    });
}

async fn monitor(shared: Arc<Shared>, directory: File) {
    let listener = socket::listen(directory.as_fd(), berth_monitor_api::SOCKET, 100).unwrap();
    loop {
        match socket::accept(listener.as_fd()) {
            Ok(connection) => drop(tokio::spawn(serve(Arc::clone(&shared), Channel::new(connection).unwrap()))),
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

async fn serve(shared: Arc<Shared>, channel: Channel) {
    let mut exits = shared.exits.subscribe();
    let mut subscribed = false;
    let mut buffer = vec![0; frame::MAX_FRAME];
    loop {
        let (tag, body) = tokio::select! {
            received = channel.recv(&mut buffer) => {
                let Ok((length @ 1.., _)) = received else { return };
                let Tagged { tag, body } = Tagged::<MonitorRequest>::decode(&buffer[..length]).unwrap();
                subscribed |= body == MonitorRequest::Subscribe;
                (tag, answer(&shared, body))
            }
            exit = exits.recv(), if subscribed => {
                let (id, exit) = exit.unwrap();
                (0, MonitorReply::Exited { id, exit })
            }
        };
        if channel.send(&Tagged { tag, body }.encode(), &[]).await.is_err() {
            return;
        }
    }
}

fn answer(shared: &Shared, request: MonitorRequest) -> MonitorReply {
    let mut tasks = shared.tasks.lock().unwrap();
    match request {
        MonitorRequest::Hello => {
            MonitorReply::Hello { version: frame::VERSION, pid: std::process::id(), pod: POD.into() }
        }
        MonitorRequest::Subscribe => MonitorReply::Done,
        MonitorRequest::List => {
            let living = tasks.pids.iter().map(|(id, pid)| (id.clone(), *pid, None));
            let ended = tasks.ended.iter().map(|(id, exit)| (id.clone(), 0, Some(*exit)));
            let task = |(id, pid, exit)| Task { id, kind: TaskKind::Exec, pid, exit, log_dropped: 0 };
            MonitorReply::Tasks(living.chain(ended).map(task).collect())
        }
        MonitorRequest::Signal { id, signal } => {
            tasks.signals.push((id.clone(), signal));
            if let Some(pid) = tasks.pids.get(&id) {
                let process = berth_sys::pidfd::open(*pid).unwrap();
                berth_sys::pidfd::signal(process.as_fd(), signal).unwrap();
            }
            MonitorReply::Done
        }
        MonitorRequest::CloseStdin { id } => {
            tasks.stdin_closed.push(id);
            MonitorReply::Done
        }
        other => panic!("a request that sessions do not make: {other:?}"),
    }
}
