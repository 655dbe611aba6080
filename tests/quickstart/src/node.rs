//! The daemon as a person runs it: `berth serve` in a root directory of its own, and `berth` commands that talk to it.
//! Must not: know more of it than its command line, its sockets and its log.
use crate::process::{self, Ended};
use crate::{Result, console, interrupt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long output may lag behind what it tells of.
const OUTPUT_LIMIT: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// Lines of the daemon's log that a failure shows.
const TAIL: usize = 30;

/// A daemon and its root.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    root: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Node {
    /// Starts it and waits until both sockets take connections. It is its own process group, so that Ctrl-C is not its end.
    pub fn start(bin: &Path, root: &Path, log: &Path) -> Result<Self> {
        let program = bin.join("berth");
        let failed = |e: std::io::Error| format!("{}: {e}", log.display());
        let file = File::options().create(true).append(true).open(log).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        let mut command = Command::new(&program);
        command.arg("serve").arg("--root").arg(root).env_remove("NOTIFY_SOCKET");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).process_group(0).spawn();
        let child = child.map_err(|e| format!("{}: {e}", program.display()))?;
        let mut node = Self { program, root: root.to_owned(), log: log.to_owned(), child };
        if let Err(why) = node.wait_until_ready() {
            let tail = node.log_tail();
            node.stop()?;
            return Err(format!("berth serve: {why}\n{tail}"));
        }
        Ok(node)
    }

    fn wait_until_ready(&mut self) -> Result {
        let end = Instant::now() + START_LIMIT;
        let sockets = [self.socket(), self.root.join("run/node.sock")];
        while !sockets.iter().all(|path| UnixStream::connect(path).is_ok()) {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                return Err(format!("ended with {}", process::ending(status.code())));
            }
            if Instant::now() >= end {
                return Err(format!("no sockets after {} s", START_LIMIT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run/berth.sock")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether somebody listens on its socket. A killed process closes that a moment before it is seen to be dead.
    pub fn answers(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok()
    }

    /// Whether its process lives.
    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `berth --root ROOT`, as a person would have to type it.
    pub fn command_line(&self) -> String {
        format!("{} --root {}", self.program.display(), self.root.display())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// Runs `berth ARGS`, shows its output, and returns its standard output. Error: it did not end with 0.
    pub fn show(&self, args: &[&str]) -> Result<String> {
        let ended = self.shown(args)?;
        match ended.code {
            Some(0) => Ok(ended.out),
            code => Err(format!("berth {} ended with {}", args.join(" "), process::ending(code))),
        }
    }

    /// The same for a command that must be refused; returns what it says on standard error.
    pub fn show_refused(&self, args: &[&str]) -> Result<String> {
        let ended = self.shown(args)?;
        match ended.code {
            Some(0) => Err(format!("berth {} was to be refused, and was not", args.join(" "))),
            _ => Ok(ended.err),
        }
    }

    fn shown(&self, args: &[&str]) -> Result<Ended> {
        println!("   $ berth {}", args.join(" "));
        let ended = process::kept(&mut self.command(args), COMMAND_LIMIT)?;
        console::indented(&ended.out);
        console::indented(&ended.err);
        Ok(ended)
    }

    /// Runs `berth ARGS` with our own output: on a terminal, it draws there.
    pub fn pass_on(&self, args: &[&str]) -> Result {
        println!("   $ berth {}", args.join(" "));
        console::flush();
        process::passed_on(&mut self.command(args), COMMAND_LIMIT)
    }

    /// Runs `berth ARGS`, shows nothing, until its output has `text`; gives up after five seconds.
    pub fn wait_for_output(&self, args: &[&str], text: &str) -> Result {
        let end = Instant::now() + OUTPUT_LIMIT;
        while !process::kept(&mut self.command(args), COMMAND_LIMIT)?.out.contains(text) {
            if Instant::now() >= end {
                return Err(format!("berth {}: {text:?} is missing", args.join(" ")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Runs `berth ARGS -o json`, shows nothing, and returns the document.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let ended = process::kept(self.command(args).args(["-o", "json"]), COMMAND_LIMIT)?;
        let name = format!("berth {} -o json", args.join(" "));
        if ended.code != Some(0) {
            return Err(format!("{name} ended with {}: {}", process::ending(ended.code), ended.err.trim()));
        }
        serde_json::from_str(&ended.out).map_err(|e| format!("{name}: {e}"))
    }

    /// Last lines of its log.
    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("the end of the daemon's log:\n   {}", tail.join("\n   "))
    }

    /// SIGTERM, and SIGKILL when that is not enough, which is an error.
    pub fn stop(&mut self) -> Result {
        let end = Instant::now() + STOP_LIMIT;
        if let (true, Ok(pid)) = (self.is_alive(), i32::try_from(self.pid())) {
            // Not yet reaped, so the pid is still its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        while self.is_alive() {
            if Instant::now() >= end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(format!("berth serve did not end {} s after SIGTERM", STOP_LIMIT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
