//! Processes, and the namespaces that they hold: as their own, by a thread, or by an open descriptor.
use crate::unless_gone;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs, io};

/// One process.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Command line, or the name in brackets where there is none (kernel threads, zombies).
    pub command: String,
    /// Path of the program; empty for zombies.
    pub program: String,
    /// `Z` for a zombie.
    pub state: char,
    /// Names of its own and its threads' namespaces.
    pub namespaces: BTreeSet<String>,
    /// Names of namespaces that its descriptors hold.
    pub held: BTreeSet<String>,
    /// Its control groups, as `/path` in each hierarchy.
    pub cgroups: Vec<String>,
}

impl Process {
    /// Whether it is a program of the project, by name.
    pub fn is_ours(&self) -> bool {
        let first = self.command.split(' ').next().unwrap_or_default().trim_matches(['[', ']']);
        [self.program.as_str(), first].iter().any(|path| {
            let name = Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name == "berth" || name.starts_with("berth-")
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zombie = if self.state == 'Z' { ", not reaped" } else { "" };
        write!(f, "{} ({}{zombie})", self.pid, self.command)?;
        match self.cgroups.iter().find(|c| c.as_str() != "/") {
            Some(cgroup) => write!(f, " in {cgroup}"),
            None => Ok(()),
        }
    }
}

/// Others' namespaces and descriptors show themselves to root only; a count without them would be wrong, so it fails.
pub fn need_root() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    // Uid: real, effective, saved, file system.
    let effective = status.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    if effective == Some("0") { Ok(()) } else { Err(io::Error::other("counting what is left over needs root")) }
}

/// All processes but this one, by pid and start time.
pub fn read() -> io::Result<BTreeMap<(u32, u64), Process>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if pid != std::process::id()
            && let Some((start, process)) = unless_gone(read_one(pid, &entry.path()))?
        {
            all.insert((pid, start), process);
        }
    }
    Ok(all)
}

fn read_one(pid: u32, dir: &Path) -> io::Result<(u64, Process)> {
    let (name, state, start) = stat(&fs::read_to_string(dir.join("stat"))?)
        .ok_or_else(|| io::Error::other(format!("{}: cannot be understood", dir.join("stat").display())))?;
    let words = fs::read(dir.join("cmdline")).unwrap_or_default();
    let words: Vec<_> = words.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    let mut process = Process {
        pid,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
        program: fs::read_link(dir.join("exe")).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
        state,
        ..Process::default()
    };
    // Of a zombie, and of a process that ends right now, there is no more to read than this.
    for task in fs::read_dir(dir.join("task")).into_iter().flatten().flatten() {
        process.namespaces.extend(links(&task.path().join("ns")));
    }
    process.held = links(&dir.join("fd")).filter(|l| !process.namespaces.contains(l)).collect();
    let cgroups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    process.cgroups = cgroups.lines().filter_map(|l| l.splitn(3, ':').nth(2)).map(str::to_owned).collect();
    Ok((start, process))
}

/// Name, state and start time of /proc/PID/stat; the name may contain anything, also `) Z 1`.
fn stat(text: &str) -> Option<(String, char, u64)> {
    let (before, after) = text.rsplit_once(") ")?;
    let name = before.split_once(" (")?.1;
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    // Start time is field 22 of the line, the state field 3.
    Some((name.to_owned(), state, fields.nth(18)?.parse().ok()?))
}

/// The links of a directory that name namespaces.
fn links(dir: &Path) -> impl Iterator<Item = String> {
    const KINDS: [&str; 8] = ["net:[", "mnt:[", "pid:[", "ipc:[", "uts:[", "user:[", "cgroup:[", "time:["];
    let targets = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| fs::read_link(e.path()).ok());
    targets.map(|t| t.to_string_lossy().into_owned()).filter(|t| KINDS.iter().any(|k| t.starts_with(k)))
}

/// Every namespace that a process holds, with the first that does.
pub fn namespaces(processes: &BTreeMap<(u32, u64), Process>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for process in processes.values() {
        for name in &process.namespaces {
            all.entry(name.clone()).or_insert_with(|| format!("process {process}"));
        }
    }
    for process in processes.values() {
        for name in &process.held {
            all.entry(name.clone()).or_insert_with(|| format!("a descriptor of process {process}"));
        }
    }
    // Our own are not leaks, whoever else is in them.
    for name in links(Path::new("/proc/self/ns")) {
        all.entry(name).or_insert_with(|| "this process".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_a_state() {
        let tail = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let line = format!("42 (a) Z (b) S {tail} 777 23 24");
        assert_eq!(stat(&line), Some(("a) Z (b".into(), 'S', 777)));
        assert_eq!(stat("42 (a"), None);
    }

    #[test]
    fn our_programs_are_known_by_their_file_name() {
        let process = |program: &str, command: &str| Process {
            program: program.into(),
            command: command.into(),
            ..Process::default()
        };
        assert!(process("/opt/berth/1/berth-monitor", "x").is_ours());
        assert!(process("", "[berth-init]").is_ours());
        assert!(process("/memfd:init", "/t/berth serve --root /x").is_ours());
        assert!(!process("/usr/bin/vi", "vi /src/berth/main.rs").is_ours());
        assert!(!process("/usr/bin/berthold", "berthold").is_ours());
    }
}
