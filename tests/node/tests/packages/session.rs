//! An open exec session of an unmodified client. Owns: its process and its two pipes.
use super::node;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// A shell in a container that repeats what it hears.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    pub fn open(container: &str) -> Self {
        let script = "while read line; do echo heard $line; done; exit 3";
        let mut command = node::crictl();
        command.args(["exec", "-i", container, "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    /// Says a word, and waits for its echo.
    pub fn say(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("heard {word}\n"));
    }

    /// Ends its input; the exit code as crictl tells it.
    pub fn end(mut self) -> i32 {
        drop(self.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // crictl ends with 1 and says the command's own code.
        let code = said
            .rsplit_once("exit code ")
            .and_then(|(_, rest)| rest.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok());
        code.unwrap_or_else(|| panic!("crictl says no exit code: {:?} {said}", output.status))
    }
}
