//! Supervises the processes of one pod: spawns them, holds their pidfds, streams, terminals and log files, reaps, and keeps
//! their exit codes. It decides nothing and outlives the daemon; it ends only when it is told to.
//!
//! `berth-monitor --pod ID --dir DIR` listens on `DIR/monitor.sock` and writes exit records to `DIR/exits`. If descriptor 3 is a
//! pipe, it gets one byte when the socket is there, or the reason why it never will be.
#![forbid(unsafe_code)]

mod connection;
mod files;
mod lines;
mod log;
mod oom;
mod request;
mod server;
mod source;
mod stamp;
mod supervise;
mod task;
mod token;

use berth_sys::process;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// The descriptor that readiness is told on.
const READY_FD: i32 = 3;

fn main() -> ExitCode {
    // First of all, before a descriptor of ours can take these numbers.
    let ready = process::take_inherited(READY_FD).and_then(pipe_only);
    let result = process::close_inherited_from(READY_FD + 1).map_err(|e| format!("close descriptors: {e}"));
    match result.and_then(|()| arguments(std::env::args())).and_then(|(pod, dir)| server::Server::start(&pod, &dir)) {
        Ok(mut server) => {
            if let Some(mut ready) = ready {
                // A launcher that has gone needs no byte.
                let _ = ready.write_all(b"R");
            }
            server.run();
            ExitCode::SUCCESS
        }
        Err(message) => {
            match ready {
                Some(mut ready) => drop(ready.write_all(message.as_bytes())),
                None => drop(writeln!(std::io::stderr(), "berth-monitor: {message}")),
            }
            ExitCode::FAILURE
        }
    }
}

/// The descriptor if it is a pipe: anything else there was not meant for us.
fn pipe_only(fd: OwnedFd) -> Option<File> {
    let file = File::from(fd);
    file.metadata().is_ok_and(|m| m.file_type().is_fifo()).then_some(file)
}

fn arguments(mut args: impl Iterator<Item = String>) -> Result<(String, PathBuf), String> {
    let (mut pod, mut dir) = (None, None);
    args.next();
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--pod" => pod = Some(value),
            "--dir" => dir = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {name}; usage: berth-monitor --pod ID --dir DIR")),
        }
    }
    let pod = pod.filter(|id| id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let pod = pod.ok_or("--pod must be 64 lower-case hex digits")?;
    Ok((pod, dir.ok_or("--dir is missing")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_checked() {
        let parse = |text: &str| arguments(["berth-monitor"].into_iter().chain(text.split(' ')).map(str::to_owned));
        let pod = "a".repeat(64);
        assert_eq!(parse(&format!("--pod {pod} --dir /run/x")), Ok((pod.clone(), "/run/x".into())));
        for bad in ["--pod", "--pod abc --dir /x", "--dir /x", &format!("--pod {pod}"), "--what 1"] {
            assert!(parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
