//! Settings of the whole machine that a kubelet changes, or that many nodes at once need. Owns: putting back what was there before the
//! first node when the last one ends, also across test programs. Must not: leave a value changed.
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};

/// What a kubelet writes (pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables), and what each runtime and kubelet takes one of.
const FILES: [&str; 7] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "fs/inotify/max_user_instances",
];
/// Lies where a restart of the machine removes it. Its content is what was there before the first node.
const RECORD: &str = "/run/lock/berth-cluster-tests.sysctls";
/// Instances of inotify that the nodes of one machine need at most.
const INSTANCES: &str = "8192";

/// As long as one lives, the machine may have the nodes' values.
pub struct Guard(Option<Flock<File>>);

impl Guard {
    /// Notes what is there, if no other node has, and makes room.
    pub fn new() -> io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(RECORD)?;
        // Whoever is alone writes the record; the others wait until it is there.
        let mut lock = match Flock::lock(options, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, _)) => Flock::lock(file, FlockArg::LockShared).map_err(|(_, e)| e)?,
        };
        let mut record = String::new();
        lock.read_to_string(&mut record)?;
        if record.is_empty() {
            let values = FILES.map(|name| format!("{name} {}", read(name).unwrap_or_default()));
            lock.write_all(values.join("\n").as_bytes())?;
        }
        lock.relock(FlockArg::LockShared)?;
        write("fs/inotify/max_user_instances", INSTANCES);
        Ok(Self(Some(lock)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut lock) = self.0.take() else { return };
        // Another node still runs: it will do it.
        if lock.relock(FlockArg::LockExclusiveNonblock).is_err() {
            return;
        }
        let mut record = String::new();
        if lock.rewind().is_ok() && lock.read_to_string(&mut record).is_ok() {
            for line in record.lines() {
                if let Some((name, value)) = line.split_once(' ')
                    && read(name).as_deref() != Some(value)
                {
                    write(name, value);
                }
            }
        }
        // Emptied, not removed: somebody may wait for the lock of this very file.
        let _ = lock.set_len(0);
    }
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

fn write(name: &str, value: &str) {
    // A machine that forbids it does so to the kubelet as well, which only logs it.
    if let Err(e) = fs::write(format!("/proc/sys/{name}"), value) {
        eprintln!("/proc/sys/{name} cannot be set to {value}: {e}");
    }
}
