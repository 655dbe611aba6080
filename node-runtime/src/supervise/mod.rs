//! `berth supervise`: keeps the daemon running on a node without a service manager. Starts it again when it ends, with growing pauses; hands on
//! SIGTERM; takes over a daemon that an earlier supervisor has left running. Has a dead-man timer that died be followed by another one.
//!
//! Owns: that one process, its log file, a status file, and a follower in case that it is killed. Format: `docs/formats/supervisor.md`. Must not:
//! run in a pod's control group, or start anything but these.
mod child;
mod follower;
mod log;
mod status;

use crate::adopt::DeadmanAgain;
use crate::layout::Layout;
use crate::{apart, node_files};
use anyhow::{Context, Result, bail};
use child::{Daemon, Ended};
use follower::Follower;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// First pause before the daemon is started again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A daemon that has run this long was well: pauses begin anew. So they do after one that was asked to end, as for other settings.
const WELL: Duration = Duration::from_secs(60);
/// How often the log's length is looked at, and whether a dead-man timer has died.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// How long the daemon may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// What to keep running.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The daemon's program; default: this one
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// The daemon's log; default: /var/log/berth/berth.log, or ROOT/log/berth.log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Length in bytes at which the log is put aside as FILE.1
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(4096..))]
    log_max: u64,
    /// Keep a second process that goes on where this one is killed: for nodes whose init does not start it again
    #[arg(long)]
    followed: bool,
    /// Be that process, of the supervisor with this process id
    #[arg(long, value_name = "PID", hide = true, conflicts_with = "followed")]
    follow: Option<u32>,
    /// Options of `berth serve`, after `--`
    #[arg(last = true, value_name = "OPTION")]
    serve: Vec<String>,
}

/// Runs until SIGTERM or SIGINT, and ends the daemon then. Pods live on.
pub fn run(layout: &Layout, options: &Options) -> Result<()> {
    // Fails where it leads a group already; then it is apart from whoever started it anyway.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("async runtime")?;
    runtime.block_on(async {
        match options.follow {
            Some(supervisor) => follower::follow(layout, options, supervisor).await,
            None => keep(layout, options).await,
        }
    })
}

async fn keep(layout: &Layout, options: &Options) -> Result<()> {
    let mut signals = Signals::new()?;
    let _lock = lock(layout)?;
    let log = log::Log::open(layout, options.log.clone(), options.log_max)?;
    match crate::adopt::at_start(layout).await {
        Ok(true) => {}
        Ok(false) => {
            log.say("what another boot has left of an adoption is walked back, and no daemon is wanted");
            return Ok(());
        }
        Err(e) => log.say(&format!("what another boot has left of an adoption: {e:#}")),
    }
    let apart = leave_pods_groups(layout, &log);
    let mut status = status::Status::new(layout);
    let mut guard =
        Guard { layout, log: &log, deadman: DeadmanAgain::default(), follower: Follower::new(layout, options) };
    let mut pause = FIRST_PAUSE;
    loop {
        let (begun, mut well) = (Instant::now(), false);
        let daemon = Daemon::running(layout).map_or_else(|| Daemon::start(layout, options, &log), Ok);
        let how = match daemon {
            Ok(mut daemon) => {
                status.started(daemon.pid());
                // Once the status says who the supervisor is: a follower goes by that.
                guard.look();
                match watched(&mut daemon, &mut signals, &mut guard).await {
                    Some(ended) => {
                        well = ended.well;
                        format!("the daemon (process {}) has ended: {}", daemon.pid(), ended.how)
                    }
                    None => break,
                }
            }
            // No process to be had, or its program is just being exchanged: that passes.
            Err(e) => format!("the daemon cannot be started: {e:#}"),
        };
        log.say(&how);
        guard.look();
        status.ended(&how);
        if well || begun.elapsed() >= WELL {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = signals.end.wanted() => break,
            // Another program is there: it is not what failed.
            _ = signals.hangup.recv() => pause = FIRST_PAUSE,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
    status.remove();
    guard.follower.end();
    if let Some((cgroups, apart)) = apart {
        cgroups.rejoin(&apart).await?;
    }
    Ok(())
}

/// Until the daemon ends, which is told, or is wanted no more.
async fn watched(daemon: &mut Daemon, signals: &mut Signals, guard: &mut Guard<'_>) -> Option<Ended> {
    loop {
        tokio::select! {
            () = signals.end.wanted() => {
                daemon.end(15, END_LIMIT).await;
                return None;
            }
            // The daemon's program was replaced.
            _ = signals.hangup.recv() => daemon.signal(15),
            ended = daemon.ended() => return Some(ended),
            () = tokio::time::sleep(LOOK_PAUSE) => guard.look(),
        }
    }
}

/// What is looked at while the daemon runs, and between its runs.
struct Guard<'a> {
    layout: &'a Layout,
    log: &'a log::Log,
    deadman: DeadmanAgain,
    follower: Follower,
}

impl Guard<'_> {
    fn look(&mut self) {
        self.log.keep_short();
        self.follower.look(self.log);
        match self.deadman.look(self.layout) {
            Ok(None) => {}
            Ok(Some(pid)) => {
                self.log.say(&format!("a dead-man timer that died is followed by another one (process {pid})"))
            }
            Err(e) => self.log.say(&format!("an operation that nobody watches: {e:#}")),
        }
    }
}

struct Signals {
    end: End,
    hangup: Signal,
}

/// SIGTERM or SIGINT.
struct End(Signal, Signal);

impl End {
    /// Waits until it is wanted.
    async fn wanted(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).context("signals");
        let end = End(of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        Ok(Self { end, hangup: of(SignalKind::hangup())? })
    }
}

/// One supervisor a root. The file has its process id.
fn lock(layout: &Layout) -> Result<File> {
    std::fs::create_dir_all(&layout.run).with_context(|| format!("directory {}", layout.run.display()))?;
    let path = layout.run.join("supervise.pid");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.with_context(|| path.display().to_string())?;
    if !crate::adopt::try_exclusive(&file) {
        bail!("another `berth supervise` runs for root {}", layout.root.display());
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// A supervisor that a pod has started must not end with it.
fn leave_pods_groups(layout: &Layout, log: &log::Log) -> apart::Left {
    let (pods, own) = (layout.name(), format!("{}-runtime", layout.name()));
    let complain = |e| log.say(&format!("the supervisor stays in the control group that it was started in: {e}"));
    apart::leave(|cgroups| cgroups.set_apart(&pods, &own, "supervise"), complain)
}

/// The supervisor of a root, if one runs.
pub(crate) fn holder(layout: &Layout) -> Option<u32> {
    let path = layout.run.join("supervise.pid");
    let file = File::open(&path).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    node_files::text(&path)?.trim().parse().ok()
}

/// Ends the supervisor of a root, and with it the daemon; also a daemon without one. Nothing that runs is fine. Errors: something still runs
/// after `limit`.
pub(crate) async fn end(layout: &Layout, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut asked = None;
    loop {
        // A supervisor that is starting calls this too, and has no daemon yet.
        let supervisor = holder(layout).filter(|pid| *pid != std::process::id());
        let running = supervisor.or_else(|| Daemon::running(layout).map(|daemon| daemon.pid()));
        let Some(pid) = running else { return Ok(()) };
        if asked != Some(pid)
            && let Ok(process) = berth_sys::pidfd::open(pid)
        {
            // Whoever holds the lock or the socket now is who the descriptor means.
            if holder(layout) == Some(pid) || Daemon::running(layout).is_some_and(|daemon| daemon.pid() == pid) {
                let _ = berth_sys::pidfd::signal(process.as_fd(), 15);
                asked = Some(pid);
            }
        }
        if Instant::now() > deadline {
            bail!("process {pid} of Berth's daemon has not ended after {} s", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
