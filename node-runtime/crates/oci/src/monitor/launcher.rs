//! Starting monitors.
//!
//! Owns: the sealed copies of the programs, the new process until it answers, and reaping it. Must not: end a monitor that has
//! answered; it outlives the daemon.
//!
//! A monitor is a plain child of the daemon, in a session and cgroup of its own. A task waits for its pidfd and reaps it, so it never
//! stays a zombie and its exit status is known; when the daemon ends, it becomes a child of the system's init, which reaps too. A
//! double fork would need a helper process and would tell less.
use berth_model::{Error, ErrorKind, PodId, Result, ResultExt};
use berth_monitor_api::spec::CgroupJoin;
use berth_monitor_client::{CALL_LIMIT, Monitor, Program, channel};
use berth_sys::pidfd::{self, Child, ExitStatus, Zombie};
use berth_sys::poll;
use berth_sys::spawn::{self, Spawn};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

const SIGKILL: i32 = 9;
/// Descriptor that a monitor tells its readiness on.
const READY_FD: i32 = 3;
/// Longest text of a monitor that cannot start.
const MAX_REASON: u64 = 4096;

/// How a monitor is started.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// Its cgroup: a leaf outside of the pods'.
    pub cgroup: CgroupJoin,
}

/// Starts monitors.
#[derive(Debug, Clone)]
pub struct Launcher {
    monitor: Program,
    init: Program,
}

/// A monitor's process, as its parent sees it.
#[derive(Debug, Clone)]
pub struct MonitorProcess {
    /// Process id.
    pub pid: u32,
    /// Pidfd.
    pub pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl MonitorProcess {
    /// Resolves when the process has ended and is reaped; `None` if another part of the daemon has taken its status.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }
}

/// Ends a process that nobody has taken charge of: the launch failed, or its caller went away.
struct Unclaimed(Option<MonitorProcess>);

impl Unclaimed {
    fn claim(mut self) -> Option<MonitorProcess> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = pidfd::signal(process.pidfd.as_fd(), SIGKILL);
        }
    }
}

impl Launcher {
    /// Reads both programs. Blocks.
    pub fn load(monitor_exe: &Path, init_exe: &Path) -> Result<Self> {
        Ok(Self { monitor: Program::load(monitor_exe)?, init: Program::load(init_exe)? })
    }

    /// Init, for [`super::SpawnRequest`].
    pub fn init(&self) -> &Program {
        &self.init
    }

    /// Starts the monitor of a pod, whose runtime directory `dir` exists, and connects to it. On an error, no process is left.
    pub async fn launch(&self, pod: &PodId, dir: &Path, options: &LaunchOptions) -> Result<(Monitor, MonitorProcess)> {
        let deadline = Instant::now() + CALL_LIMIT;
        let (program, options) = (self.monitor.clone(), options.clone());
        let (owned_pod, owned_dir) = (pod.clone(), dir.to_owned());
        let start = move || start_process(&program, &owned_pod, &owned_dir, &options);
        let (ready, process) =
            tokio::task::spawn_blocking(start).await.map_err(|e| Error::internal(format!("blocking task: {e}")))??;
        let answer = timeout_at(deadline, until_end(ready)).await;
        let answer = answer.map_err(|_| late(pod))?.context(|| format!("readiness of the monitor of pod {pod}"))?;
        match &answer[..] {
            b"R" => {}
            b"" => return Err(Error::internal(format!("monitor of pod {pod} ended before it was ready"))),
            reason => {
                let reason = String::from_utf8_lossy(reason);
                return Err(Error::internal(format!("monitor of pod {pod} cannot start: {reason}")));
            }
        }
        let monitor = Monitor::connect(dir, pod, deadline).await?;
        let process = process.claim().ok_or_else(|| late(pod))?;
        Ok((monitor, process))
    }
}

fn late(pod: &PodId) -> Error {
    let text = format!("monitor of pod {pod} was not ready within {} s", CALL_LIMIT.as_secs());
    Error::new(ErrorKind::DeadlineExceeded, text)
}

/// Starts the process: what blocks of a launch. The pipe gets its readiness.
fn start_process(
    program: &Program,
    pod: &PodId,
    dir: &Path,
    options: &LaunchOptions,
) -> Result<(io::PipeReader, Unclaimed)> {
    let (directory, tasks) = open_cgroup(&options.cgroup)?;
    let null = File::options().read(true).write(true).open("/dev/null").context(|| "/dev/null")?;
    let (ready, told) = io::pipe().context(|| "pipe")?;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::invalid("directory", "has a zero byte"));
    let (pod_arg, dir_arg) = (text(pod.as_str().as_bytes())?, text(dir.as_os_str().as_bytes())?);
    let args: [&CStr; 5] = [c"berth-monitor", c"--pod", &pod_arg, c"--dir", &dir_arg];
    let fds = [(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2), (told.as_fd(), READY_FD)];
    let tasks: Vec<_> = tasks.iter().map(AsFd::as_fd).collect();
    let plan = Spawn {
        fds: &fds,
        cgroup: directory.as_ref().map(AsFd::as_fd),
        tasks: &tasks,
        new_session: true,
        ..Spawn::new(program.as_fd(), &args)
    };
    let spawned = spawn::spawn(&plan).map_err(|e| Error::from(e.error).context(e.step));
    let spawned = spawned.context(|| format!("start the monitor of pod {pod}"))?;
    let (told_end, ended) = watch::channel(None);
    let pidfd = Arc::new(spawned.pidfd);
    tokio::runtime::Handle::current().spawn(reap(Arc::clone(&pidfd), told_end));
    Ok((ready, Unclaimed(Some(MonitorProcess { pid: spawned.pid, pidfd, ended }))))
}

fn open_cgroup(cgroup: &CgroupJoin) -> Result<(Option<File>, Vec<File>)> {
    let CgroupJoin::Own { v2, v1_tasks } = cgroup else {
        return Err(Error::internal("a monitor joins its cgroup by itself"));
    };
    let at = |path: &Path| format!("cgroup of the monitor: {}", path.display());
    let directory = v2.as_ref().map(|path| File::open(path).context(|| at(path))).transpose()?;
    let open = |path: &std::path::PathBuf| File::options().write(true).open(path).context(|| at(path));
    Ok((directory, v1_tasks.iter().map(open).collect::<Result<_>>()?))
}

/// Waits for a process and reaps it.
async fn reap(pidfd: Arc<OwnedFd>, ended: watch::Sender<Option<ExitStatus>>) {
    let Ok(watched) = pidfd.try_clone().and_then(channel::watch) else { return };
    loop {
        if watched.readable().await.is_err() {
            return;
        }
        match pidfd::try_wait(Child::Fd(pidfd.as_fd()), Zombie::Reap) {
            Ok(Some((_, status))) => {
                ended.send_replace(Some(status));
                return;
            }
            Ok(None) => tokio::task::yield_now().await,
            Err(_) => return,
        }
    }
}

/// Reads a pipe until its end, or as much as is sensible.
async fn until_end(pipe: io::PipeReader) -> io::Result<Vec<u8>> {
    poll::set_nonblocking(pipe.as_fd())?;
    let pipe = channel::watch(pipe.into())?;
    let mut all = Vec::new();
    loop {
        let mut ready = pipe.readable().await?;
        let mut buffer = [0; 512];
        match ready.try_io(|pipe| berth_sys::poll::read(pipe.as_fd(), &mut buffer)) {
            Ok(Ok(0)) => return Ok(all),
            Ok(Ok(n)) if (all.len() + n) as u64 <= MAX_REASON => all.extend_from_slice(&buffer[..n]),
            Ok(Ok(_)) => return Ok(all),
            Ok(Err(e)) => return Err(e),
            Err(_) => {}
        }
    }
}
