//! Calls of the host's `berth`, by way of `berth-agent enter`. Owns: processes, limits of time and size. Must not: know what is called.
use super::Host;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

/// Most that is taken of what a program says. What is beyond it is read and thrown away, so that it does not wait for a reader.
const MAX_OUTPUT: u64 = 4 << 20;

/// How it ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// Exit code; `None`: by a signal.
    pub(super) code: Option<i32>,
    /// Standard output.
    pub(super) out: String,
    /// Standard error.
    pub(super) err: String,
}

impl Ended {
    /// The last line that says something.
    pub(super) fn said(&self) -> String {
        let mut lines = self.err.lines().chain(self.out.lines()).filter(|line| !line.trim().is_empty());
        lines.next_back().map_or_else(|| format!("it ended with {:?} and said nothing", self.code), str::to_owned)
    }
}

/// `berth` of that version on the host, with these words.
pub(super) fn command(host: &Host, version: &str, words: &[String]) -> Result<Command, String> {
    let (program, root) = host.berth(version);
    let mut all = vec![program.display().to_string()];
    all.extend(root);
    all.extend(words.iter().cloned());
    entered(host, &all)
}

/// A program of the host.
pub(super) fn entered(host: &Host, program: &[String]) -> Result<Command, String> {
    let kubelet = host.kubelet.find()?;
    let own = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
    let mut command = Command::new(own);
    command.args(["enter", "--target", &kubelet.to_string(), "--"]).args(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    Ok(command)
}

/// Calls it, and waits for its end. Errors: it cannot be started, or takes too long (and is ended).
pub(super) async fn call(host: &Host, version: &str, words: &[String], limit: Duration) -> Result<Ended, String> {
    run(command(host, version, words)?, limit).await
}

/// The same with something to read from its standard input.
pub(super) async fn feed(
    host: &Host,
    version: &str,
    words: &[String],
    input: String,
    limit: Duration,
) -> Result<Ended, String> {
    run_with(command(host, version, words)?, Some(input), limit).await
}

/// Runs a command to its end. Errors: as [`call`].
pub(super) async fn run(command: Command, limit: Duration) -> Result<Ended, String> {
    run_with(command, None, limit).await
}

async fn run_with(mut command: Command, input: Option<String>, limit: Duration) -> Result<Ended, String> {
    let child = start(command.kill_on_drop(true), input.is_some())?;
    let ended = tokio::time::timeout(limit, finish(child, input)).await;
    ended.unwrap_or_else(|_| Err(format!("it does not end within {} s", limit.as_secs())))
}

/// Starts it, with something to read or without. It goes on when nobody waits for it, and when this process ends.
pub(super) fn spawn(
    host: &Host,
    version: &str,
    words: &[String],
    input: Option<String>,
) -> Result<JoinHandle<Result<Ended, String>>, String> {
    let child = start(&mut command(host, version, words)?, input.is_some())?;
    Ok(tokio::spawn(finish(child, input)))
}

fn start(command: &mut Command, reads: bool) -> Result<Child, String> {
    if reads {
        command.stdin(Stdio::piped());
    }
    command.spawn().map_err(|e| e.to_string())
}

async fn finish(mut child: Child, input: Option<String>) -> Result<Ended, String> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let fed = give(child.stdin.take(), input.unwrap_or_default());
    let (out, err, status, ()) = tokio::join!(text(out), text(err), child.wait(), fed);
    let status = status.map_err(|e| e.to_string())?;
    Ok(Ended { code: status.code(), out, err })
}

/// Whoever ends before it has read all of it says why.
async fn give(stdin: Option<ChildStdin>, input: String) {
    let Some(mut stdin) = stdin else { return };
    let _ = stdin.write_all(input.as_bytes()).await;
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    // What was read until an error counts.
    let _ = (&mut stream).take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_does_not_end_is_ended_and_what_one_says_is_read() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let ended = run(shell("echo out; echo no such kubelet >&2; exit 3"), Duration::from_secs(20)).await.unwrap();
        assert_eq!((ended.code, ended.out.as_str(), ended.said()), (Some(3), "out\n", "out".to_owned()));
        let message = run(shell("exec sleep 60"), Duration::from_millis(200)).await.unwrap_err();
        assert!(message.contains("does not end"), "{message}");
    }

    #[tokio::test]
    async fn a_program_reads_all_that_it_is_fed_or_none_of_it() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        let (long, limit) = ("x".repeat(1 << 20), Duration::from_secs(20));
        let ended = run_with(shell("wc -c"), Some(long.clone()), limit).await.unwrap();
        assert_eq!((ended.code, ended.out.trim()), (Some(0), "1048576"));
        let ended = run_with(shell("exit 1"), Some(long), limit).await.unwrap();
        assert_eq!(ended.code, Some(1));
        let ended = run(shell("wc -c"), limit).await.unwrap();
        assert_eq!((ended.code, ended.out.trim()), (Some(0), "0"));
    }
}
