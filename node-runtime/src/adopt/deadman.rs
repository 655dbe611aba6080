//! The dead-man timer: a process of its own, in a session and a control group of its own, that watches an operation and walks it back where
//! whoever does it has died, or is beyond its deadline. With systemd it is a transient unit, which systemd starts again should it die too; without,
//! the daemon's supervisor does that ([`Again`]).
//!
//! Owns: its start and its watch. Must not: do anything while the operation goes well.
use super::interrupted::Why;
use super::record::{self, Lock, directory, try_exclusive};
use super::steps::Node;
use super::talk::Talk;
use super::walk::{Interrupt, Walk};
use super::{now_seconds, own_group, process_start};
use crate::layout::Layout;
use crate::{apart, node_files};
use anyhow::{Context, Result, bail};
use berth_adopt::journal::State;
use berth_cgroups::{Cgroups, Driver};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long its start may take.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long beyond the deadline whoever is late may walk back by itself, in seconds.
const GRACE: u64 = 600;
/// How long it waits before it tries an undo again that failed: each time twice as long, and without end, since nobody else would.
const FIRST_AGAIN: Duration = Duration::from_secs(10);
const LAST_AGAIN: Duration = Duration::from_secs(300);

/// Its log may be on a disk that is full: that ends nothing.
fn say(text: &str) {
    Talk { quiet: false }.say(&format!("berth: {text}"));
}

/// Its unit, with systemd.
fn unit(operation: &str) -> String {
    format!("berth-adopt-deadman-{operation}.service")
}

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
    let with_systemd = with_systemd();
    let unit = unit(&node.plan.id);
    let mut command = if with_systemd {
        let mut command = Command::new("systemd-run");
        command.args([
            "--quiet",
            "--collect",
            "--unit",
            &unit,
            "--property=Restart=on-failure",
            "--property=RestartSec=1",
            // In an undo it goes on when it is asked to end; a node that goes down must not wait for it long.
            "--property=TimeoutStopSec=30",
        ]);
        command.arg("--").arg(&program);
        command
    } else {
        Command::new(&program)
    };
    words(&mut command, node.layout, &node.plan.id)?;
    let mut child = command.spawn().context("the dead-man timer cannot be started")?;
    let end = Instant::now() + START_LIMIT;
    while node_files::text(&mark).is_none_or(|text| text.trim() != node.plan.id) {
        if let Ok(Some(status)) = child.try_wait()
            && !(with_systemd && status.success())
        {
            let more = if with_systemd { format!(" and journalctl -u {unit} say") } else { " says".to_owned() };
            bail!("the dead-man timer ended with {status}; {}{more} why", dir.join("deadman.log").display());
        }
        if Instant::now() > end {
            bail!("the dead-man timer does not watch after {} s", START_LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn with_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What it is told, and where its words go. In its starter's group until it has made a session of its own, which a leader of a group cannot.
fn words(command: &mut Command, layout: &Layout, operation: &str) -> Result<()> {
    if !layout.is_system() {
        command.arg("--root").arg(&layout.root);
    }
    command.args(["adopt", "deadman", "--operation", operation]);
    let log = OpenOptions::new().create(true).append(true).open(directory(layout).join("deadman.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    Ok(())
}

/// Has a timer that died be followed by another one where no systemd does that: nobody else could go on with an operation that was left while no
/// kubelet runs, as agents reach the host by way of the kubelet.
#[derive(Default)]
pub(crate) struct Again(Seen);

impl Again {
    /// Starts one if an operation is not over and none watches it; its process id. Errors: it cannot be started.
    pub(crate) fn look(&mut self, layout: &Layout) -> Result<Option<u32>> {
        let mark = directory(layout).join("deadman");
        let Some(operation) = node_files::text(&mark).filter(|_| !with_systemd()) else { return Ok(None) };
        if watches(layout) || self.0.deadline(layout, operation.trim())?.is_none() {
            return Ok(None);
        }
        let mut command = Command::new(std::env::current_exe().context("own program")?);
        words(&mut command, layout, operation.trim())?;
        // Its end is awaited in the background.
        let child = tokio::process::Command::from(command).spawn().context("the dead-man timer cannot be started")?;
        Ok(child.id())
    }
}

/// Whether one watches, or has not ended yet.
pub(super) fn watches(layout: &Layout) -> bool {
    let mark = File::open(directory(layout).join("deadman"));
    mark.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// Says that it watches, as long as what this gives is open. Errors: it cannot be said. `None`: another one watches.
pub(super) fn mark(layout: &Layout, operation: &str) -> io::Result<Option<File>> {
    let path = directory(layout).join("deadman");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if !try_exclusive(&file) {
        return Ok(None);
    }
    file.write_all_at(operation.as_bytes(), 0)?;
    file.set_len(operation.len() as u64)?;
    Ok(Some(file))
}

/// Watches until the operation is over.
pub(super) async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut interrupt = Interrupt::new()?;
    // Fails where it is a leader already, as systemd starts it.
    let _ = rustix::process::setsid();
    let apart = own_group(layout);
    let marked = mark(layout, &options.operation);
    match &marked {
        // Whoever waits for that goes back by himself; one that was started again watches all the same.
        Err(e) => say(&format!("the dead-man timer cannot say that it watches: {e}")),
        Ok(None) => say("another dead-man timer watches"),
        Ok(Some(_)) => {}
    }
    if !matches!(marked, Ok(None)) {
        watch(layout, &options.operation, &mut interrupt).await;
    }
    if let Some((cgroups, apart)) = apart {
        cgroups.rejoin(&apart).await?;
    }
    Ok(())
}

/// Killing the control group of whoever does the operation must not kill this.
fn own_group(layout: &Layout) -> apart::Left {
    if Cgroups::default_driver() == Driver::Systemd {
        return None;
    }
    let own = |cgroups: &Cgroups| own_group::enter(cgroups, layout, "deadman").map(Some);
    apart::leave(own, |e| say(&format!("the dead-man timer stays in the control group that it was started in: {e}")))
}

/// Nothing ends this but the operation's end, and being asked to end before there is anything to do.
async fn watch(layout: &Layout, operation: &str, interrupt: &mut Interrupt) {
    let (mut seen, mut said, mut pause) = (Seen::default(), String::new(), PAUSE);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            why = interrupt.wanted() => {
                say(&format!("the dead-man timer does not watch any more: {why}"));
                return;
            }
        }
        match look(layout, operation, &mut seen).await {
            Ok(Watched::Over) => return,
            Ok(Watched::GoesOn) => pause = PAUSE,
            Ok(Watched::Failed) => pause = pause.saturating_mul(2).clamp(FIRST_AGAIN, LAST_AGAIN),
            Err(e) => {
                let text = format!("{e:#}");
                if text != said {
                    say(&text);
                    said = text;
                }
            }
        }
    }
}

enum Watched {
    /// Somebody works at it.
    GoesOn,
    /// It was taken over, and could not be ended.
    Failed,
    Over,
}

async fn look(layout: &Layout, operation: &str, seen: &mut Seen) -> Result<Watched> {
    let Some(deadline) = seen.deadline(layout, operation)? else { return Ok(Watched::Over) };
    if let Some(lock) = Lock::take(layout)? {
        return take_over(layout, lock, "whoever did it has died").await;
    }
    if now_seconds() > deadline.saturating_add(GRACE)
        && let Some(holder) = Lock::holder(layout)
        && process_start(holder.pid) == Some(holder.started)
    {
        say(&format!("process {} is beyond the deadline of operation {operation}", holder.pid));
        let process = berth_sys::pidfd::open(holder.pid)?;
        // Looked at again now that the descriptor can mean nobody else.
        if process_start(holder.pid) == Some(holder.started) {
            berth_sys::pidfd::signal(std::os::fd::AsFd::as_fd(&process), 9)?;
        }
    }
    Ok(Watched::GoesOn)
}

/// What was read of the journal, until it changes.
#[derive(Default)]
struct Seen {
    file: Option<(u64, u64, i64, i64)>,
    deadline: Option<u64>,
}

impl Seen {
    /// The operation's deadline; `None` once it is over.
    fn deadline(&mut self, layout: &Layout, operation: &str) -> Result<Option<u64>> {
        let file = std::fs::metadata(directory(layout).join("journal")).ok();
        let file = file.map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if file.is_none() || file != self.file {
            let state = State::last(&record::read(layout)?.records);
            let open = state.filter(|state| state.plan.id == operation && state.ended.is_none());
            (self.file, self.deadline) = (file, open.map(|state| state.plan.deadline));
        }
        Ok(self.deadline)
    }
}

/// The lock is let go where it fails, so that a person can try too.
async fn take_over(layout: &Layout, lock: Lock, reason: &str) -> Result<Watched> {
    say(reason);
    let mut walk = Walk::new(layout, lock, Talk { quiet: false })?;
    let left = walk.state().map(|state| state.plan);
    if let Err(e) = walk.recover(Why::left(reason, left.as_ref())).await {
        say(&format!("{e:#}"));
        return Ok(Watched::Failed);
    }
    let mut pause = PAUSE;
    while let Err(e) = walk.flush() {
        say(&format!("everything is done, and cannot be recorded: {e:#}"));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_AGAIN);
    }
    Ok(Watched::Over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_whether_one_watches() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        assert!(!watches(&layout), "there never was one");
        std::fs::create_dir_all(directory(&layout)).unwrap();
        let marked = mark(&layout, "op").unwrap().unwrap();
        assert!(watches(&layout));
        drop(marked);
        assert!(!watches(&layout));
    }
}
