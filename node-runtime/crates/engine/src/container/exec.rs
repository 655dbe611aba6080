//! Commands in a running container: ExecSync for probes and hooks, sessions for people.
use crate::clock;
use crate::container::plan::{self, SpecParts};
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::pod::stop::run_to_end;
use crate::record::{ContainerRecord, Life};
use berth_model::{ContainerId, Error, ErrorKind, ExecId, Result, RunAs};
use berth_monitor_api::frame::{Exit, TaskKind};
use berth_monitor_api::spec::{ContainerSpec, ExecSpec, InitSpec, Process, TerminalSize};
use berth_oci::monitor::{Event, Monitor, SpawnRequest, TaskStdio};
use berth_oci::pipes::{Capture, Pipe};
use berth_oci::spec::exec_process;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const SIGKILL: i32 = 9;
/// Most that is kept of each stream of an ExecSync (CVE-2022-31030); the rest is read and thrown away.
pub(crate) const OUTPUT_LIMIT: usize = 16 << 20;
/// How long output is waited for after the command itself has ended: a child in the background may hold the pipe for ever.
const DRAIN_LIMIT: Duration = Duration::from_millis(300);
/// How long a container whose namespaces cannot be joined any more is given to be seen as dead.
const ENDING_LIMIT: Duration = Duration::from_millis(200);
const ENDING_PAUSE: Duration = Duration::from_millis(10);

/// What an ExecSync gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, cut at 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, cut at 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit code, 128 + signal for signals.
    pub code: i32,
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Container, by id or unique prefix.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal of this size.
    pub terminal: Option<TerminalSize>,
    /// With a pipe for stdin.
    pub stdin: bool,
    /// What is otherwise than the container's own.
    pub overrides: ExecOverrides,
}

/// What of a command may be otherwise than of its container's first process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOverrides {
    /// Variables; each replaces the container's of its name.
    pub env: Vec<(String, Vec<u8>)>,
    /// Absolute working directory; empty is the container's.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the container; empty is the container's.
    pub user: String,
    /// Its streams are /dev/null, and nobody waits for it.
    pub detached: bool,
}

impl ExecOverrides {
    fn apply(&self, process: &mut Process) -> Result<()> {
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Error::invalid("env", format_args!("{name:?} is no name of a variable")));
            }
            if value.contains(&0) {
                return Err(Error::invalid("env", format_args!("the value of {name:?} must not have a NUL in it")));
            }
            let start = [name.as_bytes(), b"="].concat();
            process.env.retain(|entry| !entry.starts_with(&start));
            process.env.push([start.as_slice(), value].concat());
        }
        if !self.working_dir.is_empty() {
            if !self.working_dir.starts_with('/') || self.working_dir.contains('\0') {
                return Err(Error::invalid(
                    "working_dir",
                    format_args!("{:?} must be an absolute path", self.working_dir),
                ));
            }
            process.cwd = PathBuf::from(&self.working_dir);
        }
        if !self.user.is_empty() {
            process.user.run_as = RunAs::Image;
            process.user.image_user.clone_from(&self.user);
        }
        Ok(())
    }
}

/// The daemon's ends of a command's streams.
pub enum ExecStreams {
    /// None, of a command that is detached.
    None,
    /// Master of its terminal.
    Terminal(OwnedFd),
    /// Its pipes.
    Pipes {
        /// To write to, if asked for.
        stdin: Option<OwnedFd>,
        /// To read from.
        stdout: OwnedFd,
        /// To read from.
        stderr: OwnedFd,
    },
}

/// A command that runs: what can be done with it, its streams, its end.
pub struct RunningExec {
    /// Control over it.
    pub session: ExecSession,
    /// The daemon's ends of its streams.
    pub streams: ExecStreams,
    /// Its end.
    pub end: ExecEnd,
}

/// The end of a command, to wait for.
pub struct ExecEnd(oneshot::Receiver<Exit>);

impl ExecEnd {
    /// Waits. Errors: `Internal` when the monitor is lost before the end is told.
    pub async fn wait(self) -> Result<Exit> {
        self.0.await.map_err(|_| Error::internal("the monitor ended before it told the command's exit code"))
    }
}

/// Control over a command that runs.
pub struct ExecSession {
    task: Task,
    pid: u32,
}

#[derive(Clone)]
struct Task {
    engine: Arc<Engine>,
    pod: Arc<Pod>,
    monitor: Monitor,
    container: ContainerRecord,
    id: ExecId,
}

impl ExecSession {
    /// Id of the command's task at the pod's monitor.
    pub fn task_id(&self) -> &str {
        self.task.id.as_str()
    }

    /// Tells the terminal its size.
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.task.monitor.resize(self.task.id.as_str(), size.rows, size.cols).await
    }

    /// Ends the command and all that it started.
    pub async fn kill(&self) -> Result<()> {
        self.task.kill(self.pid).await
    }
}

impl Task {
    /// Why a command was not started: where the container ended meanwhile, the steps' own errors say it badly (no such process, no
    /// memory for a process in a dead namespace), and a kubelet would call them faults of the node.
    async fn explained(&self, id: &ContainerId, error: Error) -> Error {
        if error.exec_code().is_some() || error.kind() == ErrorKind::FailedPrecondition {
            return error;
        }
        let end = Instant::now() + ENDING_LIMIT;
        loop {
            let first = match running(&self.pod, id).map(|container| container.pid()) {
                Ok(Some(first)) => first,
                Ok(None) => return error,
                Err(_) => break,
            };
            let is_dead = blocking(move || Ok(berth_oci::processes::is_dead(first))).await.unwrap_or_default();
            if is_dead {
                break;
            }
            // A process leaves its namespaces a moment before it counts as dead.
            if error.kind() == ErrorKind::Unavailable || Instant::now() >= end {
                return error;
            }
            tokio::time::sleep(ENDING_PAUSE).await;
        }
        tracing::debug!(container = %id, error = %error, "a command came too late");
        Error::new(
            ErrorKind::FailedPrecondition,
            format!("container {id} is not running: it ended while the command was started"),
        )
    }

    /// Kills the command and what it started: its session and its descendants, as far as they are in the container's group.
    async fn kill(&self, pid: u32) -> Result<()> {
        let (cgroups, group) = (self.engine.cgroups.clone(), self.container.cgroup.clone());
        let tree = blocking(move || berth_oci::processes::kill_tree(pid, || cgroups.pids(&group))).await;
        // Last, so that the tree below the command is still one when it is walked.
        let ended = self.monitor.signal(self.id.as_str(), SIGKILL).await;
        tree.and(ended)
    }
}

impl Engine {
    /// Runs a command to its end and keeps its output. `limit` zero is none.
    /// Errors: `NotFound`; `FailedPrecondition` when the container does not run; `InvalidArgument` with an
    /// [`Error::exec_code`] for a program that cannot be executed; `DeadlineExceeded`, with everything that the
    /// command started killed.
    pub async fn exec_sync(
        self: &Arc<Self>,
        container: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<ExecOutput> {
        let request = ExecRequest {
            container: container.to_owned(),
            command,
            terminal: None,
            stdin: false,
            overrides: ExecOverrides::default(),
        };
        let engine = self.clone();
        run_to_end(async move {
            let output = async { engine.start_command(request).await?.collect(limit).await }.await;
            engine.metrics.node().exec(true, output.is_ok());
            output
        })
        .await
    }

    /// Starts a command and hands over its streams.
    pub async fn exec(self: &Arc<Self>, request: ExecRequest) -> Result<RunningExec> {
        let running = self.start_command(request).await;
        self.metrics.node().exec(false, running.is_ok());
        running
    }

    async fn start_command(self: &Arc<Self>, request: ExecRequest) -> Result<RunningExec> {
        if request.command.is_empty() || request.command[0].is_empty() {
            return Err(Error::invalid("cmd", "must name a program"));
        }
        let (pod, id) = self.table.container(&request.container)?;
        let container = running(&pod, &id)?;
        let exec = ExecId::from_random(clock::random()?);
        let task = Task { engine: self.clone(), monitor: pod.monitor()?, pod, container, id: exec };
        match self.begin_exec(&task, &id, &request).await {
            Ok(begun) => Ok(begun),
            Err(error) => {
                task.pod.forget_exec(task.id.as_str());
                Err(task.explained(&id, error).await)
            }
        }
    }

    async fn begin_exec(self: &Arc<Self>, task: &Task, id: &ContainerId, request: &ExecRequest) -> Result<RunningExec> {
        let spec = self.exec_spec(task, id, request).await?;
        let exit = task.pod.expect_exec(task.id.as_str());
        let wanted = |stdio| SpawnRequest {
            init: self.launcher.init(),
            id: task.id.as_str(),
            kind: TaskKind::Exec,
            stdio,
            join: Some(id.as_str()),
            log: None,
            oom: None,
            kill: None,
            spec: &spec,
        };
        let (streams, pid) = if request.overrides.detached {
            (ExecStreams::None, launch(&task.monitor, wanted(TaskStdio::Null)).await?.0)
        } else if request.terminal.is_some() {
            let (pid, master) = launch(&task.monitor, wanted(TaskStdio::Terminal)).await?;
            let master = master.ok_or_else(|| Error::internal("the monitor has no terminal of the command"))?;
            (ExecStreams::Terminal(master), pid)
        } else {
            let (stdin, stdout, stderr) = (Pipe::for_stdin(request.stdin)?, Pipe::for_output()?, Pipe::for_output()?);
            let passed = [stdin.theirs.as_fd(), stdout.theirs.as_fd(), stderr.theirs.as_fd()];
            let (pid, _) = launch(&task.monitor, wanted(TaskStdio::Passed(passed))).await?;
            let read = |ours: Option<OwnedFd>| ours.ok_or_else(|| Error::internal("a pipe without a read end"));
            (ExecStreams::Pipes { stdin: stdin.ours, stdout: read(stdout.ours)?, stderr: read(stderr.ours)? }, pid)
        };
        Ok(RunningExec { session: ExecSession { task: task.clone(), pid }, streams, end: ExecEnd(exit) })
    }

    async fn exec_spec(self: &Arc<Self>, task: &Task, id: &ContainerId, request: &ExecRequest) -> Result<InitSpec> {
        let pod = task.pod.record();
        let base: ContainerSpec = self.specification_again(task, id).await?;
        let (cgroups, group) = (self.cgroups.clone(), task.container.cgroup.clone());
        let first = task.container.pid().unwrap_or_default();
        let cgroup = blocking(move || cgroups.join_exec(&group, first)).await?;
        let mut process = exec_process(&base, &request.command, request.terminal);
        request.overrides.apply(&mut process)?;
        Ok(InitSpec::Exec(Box::new(ExecSpec {
            process,
            cgroup,
            user_namespace: pod.config.security.namespaces.user.is_some(),
        })))
    }

    /// The container's specification, for what a command inherits: user, capabilities, filter, environment.
    async fn specification_again(self: &Arc<Self>, task: &Task, id: &ContainerId) -> Result<ContainerSpec> {
        let pod = task.pod.record();
        let container =
            &ContainerRecord { config: self.with_profiles(&task.container.config), ..task.container.clone() };
        self.need_apparmor(&container.config.security).await?;
        let parts = SpecParts {
            rootfs: self.images.rootfs(id)?,
            seccomp: plan::seccomp(self, &pod.config, &container.config).await?,
            devices: Vec::new(),
        };
        plan::specification(self, &task.pod, container, parts)
    }
}

/// The container's record. Errors: `NotFound`; `FailedPrecondition` when it does not run.
pub(crate) fn running(pod: &Pod, id: &ContainerId) -> Result<ContainerRecord> {
    let container = pod.container(id)?;
    match container.life {
        Life::Running { .. } => Ok(container),
        _ => Err(Error::new(ErrorKind::FailedPrecondition, format!("container {id} is not running"))),
    }
}

/// Spawns the command and waits until its program is executed. Gives its process id, and its terminal's master if it has one:
/// that is asked for before the program runs, since one that ends at once takes it along.
async fn launch(monitor: &Monitor, request: SpawnRequest<'_>) -> Result<(u32, Option<OwnedFd>)> {
    let terminal = matches!(request.stdio, TaskStdio::Terminal).then(|| request.id.to_owned());
    let mut start = monitor.spawn(request).await?;
    let (mut child, mut master) = (0, None);
    loop {
        match start.next().await? {
            Event::Ready { pid, .. } => {
                child = pid;
                if let Some(id) = &terminal {
                    master = monitor.attach(id).await?.pop();
                }
                start.go().await?;
            }
            Event::Started => return Ok((child, master)),
            Event::Paused { .. } | Event::Made { .. } => {
                return Err(Error::internal("init answered a command as if it were a container"));
            }
        }
    }
}

impl RunningExec {
    /// Reads both streams while waiting for the end.
    async fn collect(self, limit: Duration) -> Result<ExecOutput> {
        let Self { session, streams, end } = self;
        let ExecStreams::Pipes { stdout, stderr, .. } = streams else {
            return Err(Error::internal("a command without a terminal has pipes"));
        };
        let (stdout, stderr) = (Capture::start(stdout, OUTPUT_LIMIT)?, Capture::start(stderr, OUTPUT_LIMIT)?);
        let limit = if limit.is_zero() { Duration::MAX } else { limit };
        let Ok(ended) = tokio::time::timeout(limit, end.wait()).await else {
            session.kill().await?;
            let problem = format!("command did not end within {} seconds and was killed", limit.as_secs_f64());
            return Err(Error::new(ErrorKind::DeadlineExceeded, problem));
        };
        let exit = ended?;
        let (stdout, stderr) = tokio::join!(stdout.finish(DRAIN_LIMIT), stderr.finish(DRAIN_LIMIT));
        Ok(ExecOutput { stdout, stderr, code: exit.code })
    }
}
