//! A program that runs on a node for long. Owns: its process and its log. Must not: know which program it is.
use crate::space::NodeSpace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a service is started: again and again in the same way.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Name, also of its log and its control group.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
}

impl Recipe {
    /// Without arguments.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self { name: name.to_owned(), program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.args.push(word.into());
        self
    }

    /// Adds `--name=value`.
    #[must_use]
    pub fn flag(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.arg(format!("--{name}={value}"))
    }
}

/// A running program.
#[derive(Debug)]
pub struct Service {
    recipe: Recipe,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it; its output goes to `logs/NAME.log` of the node, after what is there.
    pub fn start(space: &NodeSpace, recipe: Recipe) -> Self {
        let log = space.base().join("logs").join(format!("{}.log", recipe.name));
        let fresh = !log.exists();
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        if fresh {
            space.watch_log(&recipe.name, log.clone());
        }
        let mut command = space.command(&recipe.name, &recipe.program);
        command.args(&recipe.args).envs(recipe.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        Self { recipe, child, log }
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// How it was started.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Fails with the end of its log if it has ended.
    ///
    /// # Panics
    /// If it has ended.
    pub fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {status}:\n{}", self.recipe.name, tail(&self.log, 30));
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Recipe {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.recipe
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub fn stop(mut self, grace: Duration) -> ExitStatus {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let end = Instant::now() + grace;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }
}

/// The last lines of a file, or what prevents reading it.
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            // The HTTP/2 library of the daemon tells of every frame.
            let all: Vec<&str> = text.lines().filter(|line| !line.contains("h2::")).collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(e) => format!("{}: {e}", path.display()),
    }
}
