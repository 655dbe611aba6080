//! Running programs: with output passed on as it comes, or captured, always with an error that says which program failed.
use crate::Result;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The command as a person would type it, without its environment.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs with the caller's output. Error: it could not be started, or did not end with 0.
pub fn plain(command: &mut Command) -> Result {
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("{}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

/// Runs and returns its standard output; standard error is the caller's. Error: as [`plain`].
pub fn captured(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{}: {}", shown(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{}: output is not UTF-8", shown(command)))
}

/// Runs silently and says whether it ended with 0. A program that cannot be started did not.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|s| s.success())
}

/// Runs, passes each line of its standard output on and also hands it to `line`. Returns the error of [`plain`] as text.
pub fn watched(command: &mut Command, mut line: impl FnMut(&str)) -> Result {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("{}: {e}", shown(command)))?;
    if let Some(out) = child.stdout.take() {
        for text in BufReader::new(out).split(b'\n') {
            let Ok(bytes) = text else { break };
            let text = String::from_utf8_lossy(&bytes);
            println!("{text}");
            line(&text);
        }
    }
    let status = child.wait().map_err(|e| format!("{}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

/// Whether a program of this name is in PATH.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// `95.3 s`, or minutes where seconds are no longer read.
pub fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_status() {
        let error = plain(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.contains("sh -c exit 3") && error.contains('3'), "{error}");
        assert!(plain(&mut Command::new("/nonexistent/program")).unwrap_err().contains("/nonexistent/program"));
        assert!(!in_path("no-such-program-anywhere") && in_path("sh"));
    }

    #[test]
    fn every_line_is_seen_even_when_the_program_fails() {
        let mut seen = Vec::new();
        let result =
            watched(Command::new("sh").args(["-c", "echo one; printf two; exit 1"]), |l| seen.push(l.to_owned()));
        assert_eq!((seen, result.is_err()), (vec!["one".to_owned(), "two".to_owned()], true));
    }
}
