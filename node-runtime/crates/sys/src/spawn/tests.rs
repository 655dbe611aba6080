//! Starting real programs: descriptors, signals, limits, failures.
use super::*;
use crate::pidfd::{Child, ExitStatus, Zombie, try_wait};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

fn wait(spawned: &Spawned) -> ExitStatus {
    loop {
        if let Some((_, status)) = try_wait(Child::Fd(spawned.pidfd.as_fd()), Zombie::Reap).unwrap() {
            return status;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// A shell script's output, with one pipe as its stdout.
fn shell(script: &CStr, change: impl FnOnce(&mut Spawn<'_>)) -> (String, ExitStatus) {
    let sh = File::open("/bin/sh").unwrap();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let args = [c"sh", c"-c", script];
    let fds = [(write.as_fd(), 1)];
    let mut plan = Spawn { fds: &fds, env: &[c"PATH=/usr/bin:/bin"], ..Spawn::new(sh.as_fd(), &args) };
    change(&mut plan);
    let spawned = spawn(&plan).unwrap();
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    (text, wait(&spawned))
}

#[test]
fn only_the_given_descriptors_are_open() {
    let extra = File::open("/proc/self/status").unwrap();
    let inherited = rustix::io::dup(&extra).unwrap();
    // The directory that ls reads is one more descriptor of its own.
    let (text, status) = shell(c"exec ls /proc/self/fd", |_| {});
    assert_eq!((text.as_str(), status), ("0\n1\n", ExitStatus::Exited(0)));
    drop(inherited);
}

#[test]
fn descriptors_can_swap_their_numbers() {
    let sh = File::open("/bin/sh").unwrap();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    // Sources that are targets of others, whatever numbers the test's own have.
    let mut sources = Vec::new();
    for _ in 0..6 {
        sources.push(rustix::io::dup(&write).unwrap());
    }
    let fds: Vec<_> = sources.iter().rev().zip(1..).map(|(fd, target)| (fd.as_fd(), target)).collect();
    let args = [c"sh", c"-c", c"for fd in 1 2 3 4 5 6; do echo $fd >&$fd; done"];
    let spawned = spawn(&Spawn { fds: &fds, ..Spawn::new(sh.as_fd(), &args) }).unwrap();
    drop(write);
    sources.clear();
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), wait(&spawned)), ("1\n2\n3\n4\n5\n6\n", ExitStatus::Exited(0)));
}

#[test]
fn signals_session_and_limits_are_as_asked() {
    let script = c"grep -E '^Sig(Blk|Ign)' /proc/self/status; ulimit -Sn; ps -o sid= -p $$ | tr -d ' '; echo $$";
    let (text, _) = shell(script, |plan| {
        plan.nofile = Some((100, 200));
        plan.new_session = true;
    });
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(&lines[..3], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "100"], "{text}");
    assert_eq!(lines[3], lines[4], "a session is named after its leader");
}

#[test]
fn failures_name_their_step_and_leave_no_child() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"not a program").unwrap();
    let error = spawn(&Spawn::new(file.as_fd(), &[c"x"])).unwrap_err();
    assert_eq!((error.step, error.error.raw_os_error()), ("execute the program", Some(libc::EACCES)));
    let sh = File::open("/bin/sh").unwrap();
    let tasks = [sh.as_fd()];
    let error = spawn(&Spawn { tasks: &tasks, ..Spawn::new(sh.as_fd(), &[c"sh"]) }).unwrap_err();
    assert_eq!((error.step, error.error.raw_os_error()), ("join the cgroup", Some(libc::EBADF)));
    let fds = [(sh.as_fd(), 99)];
    assert!(spawn(&Spawn { fds: &fds, ..Spawn::new(sh.as_fd(), &[c"sh"]) }).is_err());
}
