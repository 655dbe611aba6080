//! Processes of a node, seen from outside. Owns: finding them, and what the kernel says that they hold. Must not: touch one that is
//! not the node's.
use crate::space::NodeSpace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;

/// A process of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its program's file name, and its arguments.
    pub words: Vec<String>,
}

/// What it holds of the machine's memory, in KiB (proc_pid_smaps(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// `Pss`: shared pages by its share. Most of a debug build's are pages of the program's file, and how many depends on what was read around.
    pub share: u64,
    /// `Pss_Anon`: what of that is in no file.
    pub anonymous: u64,
}

/// All processes of the node, its containers' included, that have a command line.
pub fn of(space: &NodeSpace) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words: Vec<String> = text.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        words.pop();
        let Some(program) = words.first_mut() else { continue };
        if let Some(name) = Path::new(&*program).file_name() {
            *program = name.to_string_lossy().into_owned();
        }
        if space.owns_process(&entry.path()) {
            found.push(Process { pid, words });
        }
    }
    found
}

/// Those of them that run this command, word for word.
pub fn running(space: &NodeSpace, words: &[&str]) -> Vec<Process> {
    of(space).into_iter().filter(|process| process.words == words).collect()
}

impl Process {
    /// Its memory; `None` once it has ended.
    pub fn memory(&self) -> Option<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let kib = |field: &str| {
            text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())
        };
        Some(Memory { share: kib("Pss:")?, anonymous: kib("Pss_Anon:")? })
    }

    /// Processor time so far, in the kernel's ticks (`utime` and `stime`, proc_pid_stat(5)); `None` once it has ended.
    pub fn ticks(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name before may hold anything; the state is the first field after it.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }

    /// How many descriptors it has open; `None` once it has ended.
    pub fn descriptors(&self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.count())
    }

    /// Sends it a signal; that it has ended meanwhile is no matter.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }
}
