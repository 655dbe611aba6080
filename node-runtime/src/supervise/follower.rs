//! A second process of the supervisor, which does nothing but wait: it goes on as the supervisor where that one was killed. Nobody else would on a
//! node without a service manager, where a cluster's agent needs the daemon to be started at all.
//!
//! Owns: that process, on both sides. Must not: follow a supervisor that ended by itself.
use super::child::has_ended;
use super::{Options, log::Log};
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often it is looked whether the supervisor has ended.
const PAUSE: Duration = Duration::from_millis(100);

/// The supervisor's side: one follower at a time.
pub(super) struct Follower {
    command: Option<Command>,
    child: Option<Child>,
}

impl Follower {
    /// One, if that is asked for. It is started by [`Self::look`].
    pub(super) fn new(layout: &Layout, options: &Options) -> Self {
        let command = options.followed.then(|| {
            let mut command = command(layout, options);
            command.arg("--follow").arg(std::process::id().to_string());
            command.stdin(Stdio::null()).process_group(0);
            with_rest(&mut command, options);
            command
        });
        Self { command, child: None }
    }

    /// Starts one where none runs.
    pub(super) fn look(&mut self, log: &Log) {
        let Some(command) = &mut self.command else { return };
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => {
                    log.say(&format!("the supervisor's follower has ended ({status}); another one starts"))
                }
                Err(_) => {}
            }
        }
        let output = log.handles().map(|(out, err)| command.stdout(out).stderr(err));
        match output.and_then(|command| command.spawn().context("the supervisor's follower")) {
            Ok(child) => self.child = Some(child),
            Err(e) => log.say(&format!("{e:#}")),
        }
    }

    /// Ends it: the supervisor ends by itself.
    pub(super) fn end(mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The follower's side: waits for the supervisor's end. Where it was killed, this becomes its successor, and does not return. Errors: it is no
/// supervisor's process; the successor cannot be started.
pub(super) async fn follow(layout: &Layout, options: &Options, supervisor: u32) -> Result<()> {
    let process: OwnedFd = berth_sys::pidfd::open(supervisor).context("the supervisor that is followed")?;
    if super::holder(layout) != Some(supervisor) {
        bail!("process {supervisor} is no supervisor of root {}", layout.root.display());
    }
    while !has_ended(&process) {
        tokio::time::sleep(PAUSE).await;
    }
    if super::status::supervisor(layout) != Some(supervisor) {
        return Ok(());
    }
    let mut successor = command(layout, options);
    successor.arg("--followed");
    with_rest(&mut successor, options);
    Err(successor.exec()).context("the supervisor's successor")
}

/// `berth supervise` of the program that is kept running: it may have been replaced since, and its file be gone.
fn command(layout: &Layout, options: &Options) -> Command {
    let own = || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("berth"));
    let mut command = Command::new(options.program.clone().unwrap_or_else(own));
    if !layout.is_system() {
        command.arg("--root").arg(&layout.root);
    }
    command.arg("supervise").current_dir("/");
    command
}

/// The supervisor's own options.
fn with_rest(command: &mut Command, options: &Options) {
    if let Some(program) = &options.program {
        command.arg("--program").arg(program);
    }
    if let Some(log) = &options.log {
        command.arg("--log").arg(log);
    }
    command.arg("--log-max").arg(options.log_max.to_string());
    if !options.serve.is_empty() {
        command.arg("--").args(&options.serve);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_has_all_of_the_options() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let options = Options {
            program: Some("/opt/berth/current/berth".into()),
            log: Some("/l".into()),
            log_max: 5000,
            followed: true,
            follow: None,
            serve: vec!["--x".to_owned()],
        };
        let follower = Follower::new(&layout, &options);
        let words = |command: &Command| -> Vec<String> {
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        let root = dir.path().display().to_string();
        let own = std::process::id().to_string();
        let rest = ["--program", "/opt/berth/current/berth", "--log", "/l", "--log-max", "5000", "--", "--x"];
        let expected = [["--root", root.as_str(), "supervise", "--follow", own.as_str()].as_slice(), &rest].concat();
        assert_eq!(words(follower.command.as_ref().unwrap()), expected);
        let alone = Follower::new(&layout, &Options { followed: false, ..options });
        assert!(alone.command.is_none(), "an init follows it");
    }

    #[tokio::test]
    async fn who_is_no_supervisor_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let options =
            Options { program: None, log: None, log_max: 4096, followed: true, follow: None, serve: Vec::new() };
        let told = follow(&layout, &options, std::process::id()).await.unwrap_err().to_string();
        assert!(told.contains("is no supervisor"), "{told}");
    }
}
