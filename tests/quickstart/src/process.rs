//! Running a program within a time limit. Programs get a process group of their own: a Ctrl-C is the quickstart's to handle.
use crate::{Result, interrupt};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest output that is kept, each of stdout and stderr.
const MAX_OUTPUT: u64 = 4 << 20;

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` for a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs with output kept. Error: cannot be started, takes longer than `limit` (it is killed), or Ctrl-C.
pub fn kept(command: &mut Command, limit: Duration) -> Result<Ended> {
    let shown = shown(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|e| format!("{shown}: {e}"))?;
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let code = wait(&mut child, limit).map_err(|e| format!("{shown}: {e}"))?;
    let text = |thread: JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Ended { code, out: text(out), err: text(err) })
}

/// Runs with the caller's output, which may be a terminal. Error: as [`kept`], or it did not end with 0.
pub fn passed_on(command: &mut Command, limit: Duration) -> Result {
    let shown = shown(command);
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(|e| format!("{shown}: {e}"))?;
    match wait(&mut child, limit).map_err(|e| format!("{shown}: {e}"))? {
        Some(0) => Ok(()),
        code => Err(format!("{shown}: ended with {}", ending(code))),
    }
}

/// `code 1`, or that a signal did it.
pub fn ending(code: Option<i32>) -> String {
    code.map_or_else(|| "a signal".to_owned(), |c| format!("code {c}"))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
            // The rest is read too, or the program would wait for ever.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<i32>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(status.code());
        }
        let why = match interrupt::check() {
            Err(why) => Some(why),
            Ok(()) => (Instant::now() >= end).then(|| format!("no end after {} s", limit.as_secs())),
        };
        if let Some(why) = why {
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_code_are_kept() {
        let ended = kept(&mut sh("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).unwrap();
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let error = kept(&mut sh("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("sh -c") && error.contains("no end after"), "{error}");
    }
}
