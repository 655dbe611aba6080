//! Starting monitors.
//!
//! Owns: the sealed copies of the programs, the new process until it answers, and reaping it. Must not: end a monitor that has
//! answered; it outlives the daemon.
//!
use crate::process::{Process, Start};
use berth_model::{Error, ErrorKind, PodId, Result, ResultExt};
use berth_monitor_api::build;
use berth_monitor_api::spec::CgroupJoin;
use berth_monitor_client::{CALL_LIMIT, Monitor, Program, channel};
use berth_sys::poll;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::time::{Instant, timeout_at};

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

/// Ends a process that nobody has taken charge of: the launch failed, or its caller went away.
struct Unclaimed(Option<Process>);

impl Unclaimed {
    fn claim(mut self) -> Option<Process> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill();
        }
    }
}

impl Launcher {
    /// Reads both programs. Blocks. Errors: an init of another build than this daemon's (`FailedPrecondition` naming both).
    pub fn load(monitor_exe: &Path, init_exe: &Path) -> Result<Self> {
        let launcher = Self { monitor: Program::load(monitor_exe)?, init: Program::load(init_exe)? };
        let bytes = launcher.init.bytes()?;
        match build::of_program(&bytes) {
            Some(build::BUILD) => Ok(launcher),
            other => {
                let theirs = other.unwrap_or("one that does not tell its version");
                let problem = format!(
                    "{} is of build {theirs}, this daemon of {}: install berth, berth-monitor and berth-init of one build",
                    init_exe.display(),
                    build::BUILD
                );
                Err(Error::new(ErrorKind::FailedPrecondition, problem))
            }
        }
    }

    /// Init, for [`super::SpawnRequest`].
    pub fn init(&self) -> &Program {
        &self.init
    }

    /// Starts the monitor of a pod, whose runtime directory `dir` exists, and connects to it. On an error, no process is left.
    pub async fn launch(&self, pod: &PodId, dir: &Path, options: &LaunchOptions) -> Result<(Monitor, Process)> {
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
    let null = File::options().read(true).write(true).open("/dev/null").context(|| "/dev/null")?;
    let (ready, told) = io::pipe().context(|| "pipe")?;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::invalid("directory", "has a zero byte"));
    let (pod_arg, dir_arg) = (text(pod.as_str().as_bytes())?, text(dir.as_os_str().as_bytes())?);
    let args: [&CStr; 5] = [c"berth-monitor", c"--pod", &pod_arg, c"--dir", &dir_arg];
    let fds = [(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2), (told.as_fd(), READY_FD)];
    let start = Start { program: program.as_fd(), args: &args, fds: &fds, cgroup: &options.cgroup };
    let process = start.spawn().context(|| format!("start the monitor of pod {pod}"))?;
    Ok((ready, Unclaimed(Some(process))))
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
