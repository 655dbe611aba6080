//! Programs of others that steps run: with a time limit, and their last words where they fail.
//!
//! Owns: that whatever it starts has ended when nobody waits for it any more, also when this process was killed: its group is noted, and
//! ended by the next one. Must not: end what a command has started in a session of its own, as a kubelet is.
use crate::adopt::record::directory;
use crate::adopt::{boot_id, process_start};
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// Most of its words that are told.
const WORDS: usize = 600;
/// Most that is read of what it has written.
const MAX_OUTPUT: u64 = 1 << 20;

/// Runs it, and waits until it has ended. Its output goes to a file, which what it starts may keep. Errors: it cannot be run, fails, or takes
/// too long.
pub(super) async fn run(layout: &Layout, words: &[String], limit: Duration) -> Result<()> {
    let (program, arguments) = words.split_first().ok_or_else(|| anyhow!("no command is given"))?;
    let shown = words.join(" ");
    let note = directory(layout).join("command.pid");
    end_left(&note);
    let output = directory(layout).join("command.out");
    // What it says is not worth a failure of its own on a full disk.
    let file = File::create(&output).or_else(|_| File::options().write(true).open("/dev/null"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut running = Running::start(command, note).with_context(|| shown.clone())?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = running.ended().with_context(|| shown.clone())? {
            if status.success() {
                return Ok(());
            }
            let said = node_files::contents(&output, MAX_OUTPUT).unwrap_or_default();
            let said: String = said.chars().rev().take(WORDS).collect::<Vec<_>>().into_iter().rev().collect();
            bail!("{shown}: {status}: {}", said.trim());
        }
        if Instant::now() > end {
            bail!("{shown}: has not ended after {} s", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A command, and its group, which ends with this.
struct Running {
    child: Child,
    note: PathBuf,
    reaped: bool,
}

impl Running {
    fn start(mut command: Command, note: PathBuf) -> Result<Self> {
        let child = command.spawn()?;
        let pid = child.id();
        let text = format!("{pid} {} {}", process_start(pid).unwrap_or_default(), boot_id().unwrap_or_default());
        // Without room for it, what is started here outlives this process if that is killed; all else goes on.
        let _ = std::fs::write(&note, text);
        Ok(Self { child, note, reaped: false })
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.reaped |= status.is_some();
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            // Before it is reaped: until then the number can mean no other group.
            kill_group(self.child.id());
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_file(&self.note);
    }
}

fn kill_group(leader: u32) {
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Ends a command that a process which was killed has left running.
fn end_left(note: &Path) {
    let Some(text) = node_files::text(note) else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [pid, started, boot] = words[..]
        && let (Ok(pid), Ok(started)) = (pid.parse::<u32>(), started.parse::<u64>())
        && boot_id().is_ok_and(|now| now == boot)
        // Without its leader a group keeps its number for as long as it has members.
        && process_start(pid).is_none_or(|now| now == started)
    {
        kill_group(pid);
    }
    let _ = std::fs::remove_file(note);
}

/// The same for words in place.
pub(super) async fn systemctl(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let words: Vec<String> = std::iter::once("systemctl").chain(arguments.iter().copied()).map(str::to_owned).collect();
    run(layout, &words, Duration::from_secs(90)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        std::fs::create_dir_all(directory(&layout)).unwrap();
        (dir, layout)
    }

    fn script(layout: &Layout, text: &str) -> Vec<String> {
        let place = layout.root.display().to_string();
        ["sh".to_owned(), "-c".to_owned(), text.replace("DIR", &place)].into()
    }

    async fn appears(path: &Path) -> bool {
        for _ in 0..300 {
            if path.exists() {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_has_ended() {
        let (_dir, layout) = layout();
        let (begun, late) = (layout.root.join("begun"), layout.root.join("late"));
        let words = script(&layout, "(touch DIR/begun; sleep 1; touch DIR/late) & wait");
        tokio::select! {
            _ = run(&layout, &words, Duration::from_secs(60)) => panic!("it has not ended yet"),
            seen = appears(&begun) => assert!(seen),
        }
        std::fs::remove_file(&begun).unwrap();
        let told = run(&layout, &words, Duration::from_millis(500)).await.unwrap_err().to_string();
        assert!(told.contains("has not ended"), "{told}");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(begun.exists() && !late.exists(), "its group has ended with it");
        assert!(!directory(&layout).join("command.pid").exists());
    }

    #[tokio::test]
    async fn what_a_process_has_left_that_was_killed_is_ended_by_the_next_one() {
        let (_dir, layout) = layout();
        let words = script(&layout, "touch DIR/begun; sleep 1; touch DIR/late");
        let note = directory(&layout).join("command.pid");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).process_group(0);
        let mut left = std::mem::ManuallyDrop::new(Running::start(command, note.clone()).unwrap());
        assert!(appears(&layout.root.join("begun")).await);
        // A number that means another process now is not touched.
        let text = node_files::text(&note).unwrap();
        std::fs::write(&note, text.replacen(' ', " 1", 1)).unwrap();
        end_left(&note);
        assert!(left.ended().unwrap().is_none() && !note.exists());
        std::fs::write(&note, text).unwrap();
        run(&layout, &script(&layout, "true"), Duration::from_secs(10)).await.unwrap();
        left.child.wait().unwrap();
        assert!(!layout.root.join("late").exists());
    }
}
