//! Counts what is left over on a machine: two snapshots of what the kernel shows, and their difference.
//!
//! Owns: reading processes, namespaces, mounts, control groups, links, nftables and files from /proc, cgroupfs, `nft` and
//! the file system. Must not: share code with the product, or remove anything.
//!
//! A snapshot needs root: other users' namespaces and mounts cannot be seen without.
#![forbid(unsafe_code)]

mod cgroups;
mod files;
mod mounts;
mod network;
mod processes;

use processes::Process;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What kind of thing was left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A process; also one that ended and was not reaped.
    Process,
    /// A namespace, held by a process, a thread, a descriptor or a mount.
    Namespace,
    /// A mount in a mount namespace that was there before.
    Mount,
    /// A directory of a control group hierarchy.
    Cgroup,
    /// A network interface.
    Link,
    /// A table of nftables.
    NftTable,
    /// A file or directory.
    File,
}

/// Something that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    /// Kind.
    pub kind: Kind,
    /// What it is, for people.
    pub what: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Process => "process",
            Kind::Namespace => "namespace",
            Kind::Mount => "mount",
            Kind::Cgroup => "cgroup",
            Kind::Link => "network link",
            Kind::NftTable => "nftables table",
            Kind::File => "file",
        };
        write!(f, "{kind} {}", self.what)
    }
}

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Directories whose content counts; they need not exist.
    pub roots: Vec<PathBuf>,
    /// On a machine where others work at the same time: count only what has one of these words in its name, path, command
    /// line, or that of the process that holds it. Empty counts everything.
    pub words: Vec<String>,
}

/// What the kernel shows at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// By pid and start time, so that a reused pid is another process.
    processes: BTreeMap<(u32, u64), Process>,
    /// By the kernel's name (`net:[4026531840]`), with who holds it.
    namespaces: BTreeMap<String, String>,
    /// Paths of control groups within their hierarchies, as /proc/PID/cgroup names them.
    cgroups: BTreeSet<String>,
    /// Everything else, by kind and identity, with its description.
    things: BTreeMap<(Kind, String), String>,
}

impl Snapshot {
    /// Looks at everything. Errors: not root, /proc cannot be read, or `nft` cannot be run.
    pub fn take(scope: &Scope) -> io::Result<Self> {
        processes::need_root()?;
        let processes = processes::read()?;
        let mount_namespaces = mounts::read(processes.values())?;
        let mut things = BTreeMap::new();
        let mut add = |kind, list: Vec<(String, String)>| {
            things.extend(list.into_iter().map(|(key, what)| ((kind, key), what)));
        };
        add(Kind::Mount, mounts::list(&mount_namespaces));
        let cgroups = cgroups::list(&mount_namespaces)?;
        add(Kind::Cgroup, cgroups.iter().map(|c| (c.directory.clone(), c.directory.clone())).collect());
        add(Kind::Link, network::links()?);
        add(Kind::NftTable, network::nft_tables()?);
        add(Kind::File, files::list(&scope.roots)?);
        let mut namespaces = processes::namespaces(&processes);
        for (name, place) in mounts::pinned_namespaces(&mount_namespaces) {
            namespaces.entry(name).and_modify(|what| *what += &format!(", {place}")).or_insert(place);
        }
        let cgroups = cgroups.into_iter().map(|c| c.path).collect();
        Ok(Self { processes, namespaces, cgroups, things })
    }
}

/// What is in `after` and was not in `before`.
///
/// A process counts when it is a program of ours by name, or lives in a namespace or control group that was not there
/// before: whatever else the machine starts meanwhile is none of our business.
pub fn diff(scope: &Scope, before: &Snapshot, after: &Snapshot) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for (_, process) in after.processes.iter().filter(|(key, _)| !before.processes.contains_key(key)) {
        let elsewhere = process.namespaces.iter().any(|n| !before.namespaces.contains_key(n))
            || process.cgroups.iter().any(|c| !before.cgroups.contains(c));
        if process.is_ours() || elsewhere {
            leaks.push(Leak { kind: Kind::Process, what: process.to_string() });
        }
    }
    for (name, holders) in after.namespaces.iter().filter(|(name, _)| !before.namespaces.contains_key(*name)) {
        leaks.push(Leak { kind: Kind::Namespace, what: format!("{name}, held by {holders}") });
    }
    for ((kind, key), what) in after.things.iter().filter(|(key, _)| !before.things.contains_key(key)) {
        // A namespace that is new is told as one; its mounts would only repeat it.
        if *kind == Kind::Mount && !before.namespaces.contains_key(mounts::namespace_of(key)) {
            continue;
        }
        leaks.push(Leak { kind: *kind, what: what.clone() });
    }
    leaks.retain(|leak| scope.words.is_empty() || scope.words.iter().any(|word| leak.what.contains(word.as_str())));
    leaks.sort();
    leaks.dedup();
    leaks
}

/// Looks again until nothing is left over, or `patience` is used up: the kernel takes things apart in its own time.
/// Returns what was left at the last look.
pub fn settle(scope: &Scope, before: &Snapshot, patience: Duration) -> io::Result<Vec<Leak>> {
    let end = Instant::now() + patience;
    loop {
        let leaks = diff(scope, before, &Snapshot::take(scope)?);
        if leaks.is_empty() || Instant::now() >= end {
            return Ok(leaks);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `None` where the thing vanished while it was looked at, as things in /proc do.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    // A process that ends answers ESRCH, its mountinfo EINVAL; a control group that is removed ENODEV.
    const GONE: [i32; 3] = [3, 22, 19];
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error().is_some_and(|errno| GONE.contains(&errno)) => Ok(None),
        Err(e) => Err(e),
    }
}
