//! One shell for a whole page: variables, functions and the working directory go from command to command, as on a terminal.
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// For one command: the guest is slow, and others share its machine.
const LIMIT: Duration = Duration::from_secs(180);
const MARK: &str = "--- end of command";

/// How a command ended.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Both of its outputs, as they came.
    pub output: String,
}

/// The shell.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    /// As root has it after logging in, with this working directory.
    pub fn start(directory: &Path) -> Self {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(directory).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", directory).env("LC_ALL", "C.UTF-8");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut shell = Self { child, stdin, stdout };
        writeln!(shell.stdin, "exec 2>&1").unwrap();
        shell
    }

    /// Runs a command to its end.
    pub fn run(&mut self, command: &str) -> Ran {
        // What the command reads is not what the shell reads.
        write!(self.stdin, "{{\n{command}\n}} </dev/null\necho \"{MARK} $?\"\n").unwrap();
        self.stdin.flush().unwrap();
        let watch = Watch::over(i32::try_from(self.child.id()).unwrap());
        let mut output = String::new();
        loop {
            let mut line = Vec::new();
            assert_ne!(self.stdout.read_until(b'\n', &mut line).unwrap(), 0, "the shell ended: {command}\n{output}");
            let text = String::from_utf8_lossy(&line).into_owned();
            // Output without a newline stands before the mark.
            if let Some((before, code)) = text.split_once(MARK) {
                output.push_str(before);
                drop(watch);
                return Ran { code: code.trim().parse().unwrap(), output };
            }
            output.push_str(&text);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends the shell when a command takes too long, so that its reader sees the end.
struct Watch {
    done: std::sync::mpsc::Sender<()>,
}

impl Watch {
    fn over(pid: i32) -> Self {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a command took longer than {} s", LIMIT.as_secs());
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        });
        Self { done }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.done.send(());
    }
}

#[test]
fn a_shell_keeps_what_it_was_told() {
    let mut shell = Shell::start(Path::new("/"));
    assert_eq!(shell.run("x=7; cd /tmp").code, 0);
    let ran = shell.run("cat <<'EOF'\n$x\nEOF\necho $x; pwd; printf end >&2; false");
    assert_eq!((ran.code, ran.output.as_str()), (1, "$x\n7\n/tmp\nend"));
}
