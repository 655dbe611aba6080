//! Runs one plugin: an environment of its own, a deadline, limits on what it prints, and an end for whatever it leaves.
//!
//! A plugin is the leader of a process group. When it ends, and when its time is over, the group is killed: a helper that is
//! to live on leaves it, as every daemon does (setsid). When the call failed, those that it started are killed too.
//! Must not: know what a call means, start a shell.
use super::call::Verb;
use super::result::{MAX_OUTPUT, PluginError, tidy, tidy_end};
use super::secrets::Secrets;
use super::strays;
use berth_model::{Error, ErrorKind};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

/// How much of stderr is kept: its end. Much more than is told, so that a secret is there as a whole to be hidden.
const MAX_COMPLAINT: usize = 16 << 10;
/// How long pipes may stay open after the plugin ended: somebody else holds them then.
const PIPE_LIMIT: Duration = Duration::from_millis(500);
/// How long a killed plugin may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// One call.
pub(super) struct Call<'a> {
    pub(super) program: &'a Path,
    pub(super) verb: Verb,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) input: Vec<u8>,
}

/// Why a call failed. Texts are whole, and shortened when they are told: what is shortened first may hold half a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The plugin says so.
    Told { error: PluginError, stderr: String },
    /// It ended otherwise than by saying so.
    Ended { how: String, stderr: String },
    /// It did not end in time.
    Late { stderr: String },
    /// It printed too much.
    Flood,
    /// It could not be executed.
    NotRun(String),
}

impl Failure {
    /// What callers decide on: codes 11, 50 and 51 say that trying again may help (specification, section 5).
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Told { error, .. } if matches!(error.code, 11 | 50 | 51) => ErrorKind::Unavailable,
            Self::Late { .. } => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Internal,
        }
    }

    /// The same without the secrets.
    pub(super) fn hiding(self, secrets: &Secrets) -> Self {
        match self {
            Self::Told { error, stderr } => {
                let (msg, details) = (secrets.hide(&error.msg), secrets.hide(&error.details));
                Self::Told { error: PluginError { code: error.code, msg, details }, stderr: secrets.hide(&stderr) }
            }
            Self::Ended { how, stderr } => Self::Ended { how, stderr: secrets.hide(&stderr) },
            Self::Late { stderr } => Self::Late { stderr: secrets.hide(&stderr) },
            other @ (Self::Flood | Self::NotRun(_)) => other,
        }
    }

    pub(super) fn into_error(self) -> Error {
        Error::new(self.kind(), self.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stderr = match self {
            Self::Told { error, stderr } => {
                let msg = tidy(&error.msg);
                f.write_str(if msg.is_empty() { "failed" } else { &msg })?;
                if !error.details.is_empty() {
                    write!(f, ": {}", tidy(&error.details))?;
                }
                write!(f, " (CNI error code {})", error.code)?;
                stderr
            }
            Self::Ended { how, stderr } => {
                f.write_str(how)?;
                stderr
            }
            Self::Late { stderr } => {
                f.write_str("did not end in time (spec.network.cni.timeout) and was killed")?;
                stderr
            }
            Self::Flood => return write!(f, "printed more than {} KiB and was killed", MAX_OUTPUT >> 10),
            Self::NotRun(problem) => return write!(f, "cannot be executed: {problem}"),
        };
        if stderr.is_empty() { Ok(()) } else { write!(f, "; it wrote: {}", tidy_end(stderr)) }
    }
}

/// Runs it until it ends, or until the deadline. What it printed, if it succeeded.
pub(super) async fn run(call: Call<'_>, deadline: Instant) -> Result<Vec<u8>, Failure> {
    let name = strays::new_call();
    let result = run_one(call, &name, deadline).await;
    if result.is_err() {
        let of = strays::Of::Call(name);
        let killed = tokio::task::spawn_blocking(move || strays::kill_all(&of)).await;
        if let Ok(count @ 1..) = killed {
            tracing::warn!(count, "processes that a failed CNI plugin left are killed");
        }
    }
    result
}

async fn run_one(call: Call<'_>, name: &str, deadline: Instant) -> Result<Vec<u8>, Failure> {
    let mut command = Command::new(call.program);
    command
        .env_clear()
        .envs(call.environment)
        .env(strays::CALL, name)
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tracing::debug!(program = %call.program.display(), verb = call.verb.name(), "CNI plugin");
    let mut child = command.spawn().map_err(|e| Failure::NotRun(e.to_string()))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let input = call.input;
    if let Some(mut stdin) = child.stdin.take() {
        // A task: a plugin may print before it reads, or end without reading.
        tokio::spawn(async move {
            let _ = timeout_at(deadline, stdin.write_all(&input)).await;
        });
    }
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::NotRun("it has no pipes".to_owned()));
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = conversation(&mut child, group, (out, &mut stdout), (err, &mut stderr), deadline).await;
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
    match ended {
        Ended::By(status) if status.success() => Ok(stdout),
        Ended::By(status) => Err(failed(status, &stdout, stderr)),
        Ended::Late => {
            gone(&mut child).await;
            Err(Failure::Late { stderr })
        }
        Ended::Flood => {
            gone(&mut child).await;
            Err(Failure::Flood)
        }
    }
}

enum Ended {
    By(ExitStatus),
    Late,
    Flood,
}

/// Reads both pipes until the plugin has ended.
async fn conversation(
    child: &mut Child,
    group: Option<Pid>,
    out: (impl AsyncRead + Unpin, &mut Vec<u8>),
    err: (impl AsyncRead + Unpin, &mut Vec<u8>),
    deadline: Instant,
) -> Ended {
    let mut reading = std::pin::pin!(async {
        let (full, ()) = tokio::join!(read_out(out.0, out.1), read_err(err.0, err.1));
        full
    });
    let mut read = None;
    let status = loop {
        tokio::select! {
            // The end first: with it, what was printed is complete.
            full = &mut reading, if read.is_none() => match full {
                true => return Ended::Flood,
                false => read = Some(()),
            },
            status = child.wait() => break status,
            () = tokio::time::sleep_until(deadline) => return Ended::Late,
        }
    };
    if read.is_none() {
        // Children that are left hold the pipes open; without the group they close.
        if let Some(group) = group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        if timeout(PIPE_LIMIT, reading).await.is_ok_and(|full| full) {
            return Ended::Flood;
        }
    }
    match status {
        Ok(status) => Ended::By(status),
        // The kernel does not tell: as good as a crash.
        Err(_) => Ended::By(ExitStatus::from_raw(9)),
    }
}

/// Whether it was too much; the rest is not waited for then.
async fn read_out(mut pipe: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..count]);
        if into.len() > MAX_OUTPUT {
            return true;
        }
    }
    false
}

/// Keeps the end: the last words are those that tell why.
async fn read_err(mut pipe: impl AsyncRead + Unpin, into: &mut Vec<u8>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..count]);
        let surplus = into.len().saturating_sub(MAX_COMPLAINT);
        into.drain(..surplus);
    }
}

async fn gone(child: &mut Child) {
    let _ = child.start_kill();
    if timeout(KILL_LIMIT, child.wait()).await.is_err() {
        tracing::error!(pid = child.id(), "a CNI plugin does not end after SIGKILL");
    }
}

fn failed(status: ExitStatus, stdout: &[u8], stderr: String) -> Failure {
    if let Some(signal) = status.signal() {
        let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
        return Failure::Ended { how: format!("was ended by {name} ({signal})"), stderr };
    }
    match PluginError::parse(stdout) {
        Some(error) => Failure::Told { error, stderr },
        None => {
            let how = format!("ended with exit code {} without an error in CNI's form", status.code().unwrap_or(-1));
            Failure::Ended { how, stderr }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::{Form, NetworkConfig};
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        (dir, path)
    }

    async fn call(text: &str, limit: Duration) -> Result<Vec<u8>, Failure> {
        let (_dir, path) = script(text);
        let environment = [("PATH", "/usr/bin:/bin"), ("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "unit")];
        let environment = environment.map(|(name, value)| (name, value.to_owned())).to_vec();
        let call = Call { program: &path, verb: Verb::Add, environment, input: b"{\"a\": 1}".to_vec() };
        run(call, Instant::now() + limit).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_plugin_reads_its_input_and_sees_no_environment_but_its_own() {
        // What the shell adds, and the name of the call, which differs each time.
        let own = "cat; env | sort | grep -v '^\\(PWD\\|_\\|SHLVL\\|OLDPWD\\|BERTH_CNI_CALL\\)='";
        let out = String::from_utf8(call(own, LONG).await.unwrap()).unwrap();
        assert_eq!(out, "{\"a\": 1}CNI_COMMAND=ADD\nCNI_CONTAINERID=unit\nPATH=/usr/bin:/bin\n");
    }

    #[tokio::test]
    async fn failures_say_what_happened() {
        let told = call(r#"echo '{"code": 7, "msg": "bad field", "details": "mtu"}'; exit 1"#, LONG).await;
        assert_eq!(told.unwrap_err().to_string(), "bad field: mtu (CNI error code 7)");
        let ended = call("echo why >&2; exit 3", LONG).await.unwrap_err().to_string();
        assert_eq!(ended, "ended with exit code 3 without an error in CNI's form; it wrote: why");
        let crashed = call("kill -SEGV $$", LONG).await.unwrap_err().to_string();
        assert_eq!(crashed, "was ended by SIGSEGV (11)");
        let flood = call("while true; do echo 0123456789012345678901234567890123456789; done", LONG).await;
        assert_eq!(flood.unwrap_err(), Failure::Flood);
        let busy = call(r#"echo '{"code": 11, "msg": "later"}'; exit 1"#, LONG).await.unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Unavailable);
        let long = call("head -c 100000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1", LONG).await.unwrap_err();
        assert!(long.to_string().len() < 1200 && long.to_string().ends_with("xxxend"), "{long}");
    }

    #[tokio::test]
    async fn secrets_are_hidden_before_anything_is_shortened() {
        let config = r#"{"cniVersion": "1.0.0", "name": "n", "type": "x", "token": "first line\nsecond line\n"}"#;
        let secrets = Secrets::of(&NetworkConfig::parse(config.as_bytes(), Form::Single).unwrap());
        let dir = tempfile::tempdir().unwrap();
        // Shortened first, one would end within the secret, and the other one would begin there.
        let (before, after) = ("x".repeat(790), "y".repeat(790));
        let error = serde_json::json!({
            "code": 7, "msg": format!("{before}first line\nsecond line"), "details": config,
        });
        std::fs::write(dir.path().join("out"), error.to_string()).unwrap();
        std::fs::write(dir.path().join("err"), format!("{config}first line\nsecond line{after}")).unwrap();
        let text = format!("cat {0}/err >&2; cat {0}/out; exit 1", dir.path().display());
        let told = call(&text, LONG).await.unwrap_err().hiding(&secrets).to_string();
        assert!(!told.contains("line") && told.contains("x<hidden>: ") && told.ends_with("yyy"), "{told}");
    }

    #[tokio::test]
    async fn children_in_the_group_end_with_the_plugin() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let begun = std::time::Instant::now();
        let out = call(&format!("sleep 1000 & echo $! > {}; echo done", file.display()), LONG).await.unwrap();
        assert_eq!(out, b"done\n");
        assert!(begun.elapsed() < Duration::from_secs(10), "the child's pipe is not waited for");
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert!(ends(pid).await, "the child lives on");
    }

    #[tokio::test]
    async fn after_the_deadline_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        let text = format!(
            "sleep 1000 & echo $! > {}; setsid sh -c 'echo $$ > {}; exec sleep 1000' & sleep 1000",
            inside.display(),
            outside.display()
        );
        let late = call(&text, Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
        for file in [inside, outside] {
            let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
            assert!(ends(pid).await, "{} lives on", file.display());
        }
    }

    #[tokio::test]
    async fn what_a_call_left_for_good_outlives_one_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let text = format!(
            "setsid sh -c 'echo $$ > {0}; exec sleep 1000' < /dev/null > /dev/null 2>&1 & \
             while [ ! -s {0} ]; do sleep 0.01; done",
            file.display()
        );
        call(&text, LONG).await.unwrap();
        call("exit 1", LONG).await.unwrap_err();
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let lives = !has_ended(pid);
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        assert!(lives, "the helper of a call that succeeded is killed");
    }

    fn has_ended(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    }

    async fn ends(pid: i32) -> bool {
        for _ in 0..200 {
            if has_ended(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}
