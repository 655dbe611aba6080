//! The dead-man timer: a process of its own, in a session and a control group of its own, that watches an operation and walks it back where
//! whoever does it has died, or is beyond its deadline. With systemd it is a transient unit, which systemd starts again should it die too.
//!
//! Owns: its start and its watch. Must not: do anything while the operation goes well.
use super::record::{self, Lock, directory};
use super::steps::Node;
use super::talk::Talk;
use super::walk::Walk;
use super::{now_seconds, process_start};
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, bail};
use berth_adopt::journal::State;
use berth_cgroups::{Cgroups, Driver};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long its start may take.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long beyond the deadline whoever is late may walk back by itself, in seconds.
const GRACE: u64 = 300;
/// How long it waits before it tries an undo again that failed, and how often.
const AGAIN: Duration = Duration::from_secs(10);
const TRIES: u32 = 30;
/// Its unit, with systemd.
const UNIT: &str = "berth-adopt-deadman.service";

/// What it is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The operation
    #[arg(long, value_name = "ID")]
    operation: String,
}

/// Starts it, and waits until it watches.
pub(super) async fn arm(node: &Node<'_>) -> Result<()> {
    let dir = directory(node.layout);
    let mark = dir.join("deadman");
    let _ = std::fs::remove_file(&mark);
    let program = std::env::current_exe().context("own program")?;
    let with_systemd = Path::new("/run/systemd/system").is_dir();
    let mut command = if with_systemd {
        let mut command = Command::new("systemd-run");
        command.args([
            "--quiet",
            "--collect",
            "--unit",
            UNIT,
            "--property=Restart=on-failure",
            "--property=RestartSec=1",
        ]);
        command.arg("--").arg(&program);
        command
    } else {
        Command::new(&program)
    };
    if !node.layout.is_system() {
        command.arg("--root").arg(&node.layout.root);
    }
    command.args(["adopt", "deadman", "--operation", &node.plan.id]);
    let log = OpenOptions::new().create(true).append(true).open(dir.join("deadman.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).current_dir("/");
    let mut child = command.spawn().context("the dead-man timer cannot be started")?;
    let end = Instant::now() + START_LIMIT;
    while node_files::text(&mark).is_none_or(|text| text.trim() != node.plan.id) {
        if let Ok(Some(status)) = child.try_wait()
            && !(with_systemd && status.success())
        {
            bail!("the dead-man timer ended with {status}; {} says why", dir.join("deadman.log").display());
        }
        if Instant::now() > end {
            bail!("the dead-man timer does not watch after {} s", START_LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Watches until the operation is over.
pub(super) async fn run(layout: &Layout, options: &Options) -> Result<()> {
    // Fails where it is a leader already, as systemd starts it.
    let _ = rustix::process::setsid();
    let apart = own_group(layout);
    std::fs::write(directory(layout).join("deadman"), &options.operation)?;
    let watched = watch(layout, &options.operation).await;
    if let Some((cgroups, apart)) = apart {
        cgroups.rejoin(&apart).await?;
    }
    watched
}

/// Killing the control group of whoever does the operation must not kill this.
fn own_group(layout: &Layout) -> Option<(Cgroups, berth_cgroups::Apart)> {
    if Cgroups::default_driver() == Driver::Systemd {
        return None;
    }
    let cgroups = Cgroups::probe(Driver::Cgroupfs).ok()?;
    match cgroups.move_apart(&format!("{}-adopt", layout.name()), "deadman") {
        Ok(apart) => Some((cgroups, apart)),
        Err(e) => {
            eprintln!("berth: the dead-man timer stays in the control group that it was started in: {e}");
            None
        }
    }
}

async fn watch(layout: &Layout, operation: &str) -> Result<()> {
    loop {
        tokio::time::sleep(PAUSE).await;
        let state = State::last(&record::read(layout)?.records);
        let Some(state) = state.filter(|state| state.plan.id == operation && state.ended.is_none()) else {
            return Ok(());
        };
        if let Some(lock) = Lock::take(layout)? {
            return take_over(layout, lock, "whoever did it has died").await;
        }
        if now_seconds() > state.plan.deadline.saturating_add(GRACE)
            && let Some(holder) = Lock::holder(layout)
            && process_start(holder.pid) == Some(holder.started)
        {
            eprintln!("berth: process {} is beyond the deadline of operation {operation}", holder.pid);
            let process = berth_sys::pidfd::open(holder.pid)?;
            // Looked at again now that the descriptor can mean nobody else.
            if process_start(holder.pid) == Some(holder.started) {
                berth_sys::pidfd::signal(std::os::fd::AsFd::as_fd(&process), 9)?;
            }
        }
    }
}

async fn take_over(layout: &Layout, lock: Lock, reason: &str) -> Result<()> {
    eprintln!("berth: {reason}");
    let mut walk = Walk::new(layout, lock, Talk { quiet: false })?;
    let mut last = None;
    for _ in 0..TRIES {
        match walk.recover(reason).await {
            Ok(_) => return Ok(()),
            Err(e) => {
                eprintln!("berth: {e:#}");
                last = Some(e);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    last.map_or(Ok(()), Err)
}
