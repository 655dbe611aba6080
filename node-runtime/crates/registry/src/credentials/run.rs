//! Runs a program that gives out credentials.
//!
//! Owns: its deadline, the bound on what it may say, its environment, and its end. Must not: show what it said; its standard
//! error is thrown away, because helpers print what they hold.
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Longest answer that is read.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;
/// What a program gets of the daemon's environment: where programs and its own files are, and the way out to the network.
const PASSED: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "DOCKER_CONFIG",
];

/// What to run.
pub(crate) struct Run<'a> {
    pub program: &'a Path,
    pub args: &'a [String],
    pub env: Vec<(String, String)>,
    pub input: &'a [u8],
    pub limit: Duration,
}

/// What it did. No `Debug`: the output is a secret.
pub(crate) struct Done {
    pub ok: bool,
    pub output: Vec<u8>,
}

impl Run<'_> {
    /// Runs it to its end. Errors: what it did wrong, in words for people: `cannot be started`, `took longer than`, `wrote more
    /// than`. Its whole process group is gone then.
    pub async fn run(&self) -> Result<Done, String> {
        let passed = PASSED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        let mut command = Command::new(self.program);
        command.args(self.args).env_clear().envs(passed).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
        let group = Group(child.id());
        let outcome = tokio::time::timeout(self.limit, self.talk(&mut child)).await;
        // Whatever it left behind ends with it.
        drop(group);
        match outcome {
            Ok(result) => result,
            Err(_) => Err(format!("took longer than {} s and was ended", self.limit.as_secs())),
        }
    }

    async fn talk(&self, child: &mut Child) -> Result<Done, String> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input may still answer.
                let _ = stdin.write_all(self.input).await;
            }
        };
        let read = async {
            let mut output = Vec::new();
            match stdout {
                Some(stdout) => stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut output).await.map(|_| output),
                None => Ok(output),
            }
        };
        let ((), output) = futures_util::future::join(write, read).await;
        let output = output.map_err(|e| format!("cannot be read: {e}"))?;
        if output.len() > MAX_OUTPUT {
            return Err(format!("wrote more than {MAX_OUTPUT} bytes and was ended"));
        }
        let status = child.wait().await.map_err(|e| format!("cannot be waited for: {e}"))?;
        Ok(Done { ok: status.success(), output })
    }
}

/// A process group that ends when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that all of it is gone.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}
