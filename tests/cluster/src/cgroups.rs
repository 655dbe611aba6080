//! A node's own part of every control group hierarchy. Owns: making it, joining it, killing and removing what is in it. Must not: touch
//! a group that does not bear the node's name.
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// How long processes get to be gone after SIGKILL: uninterruptible sleeps and large address spaces take their time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the hierarchies are mounted, with whether it is v2. One that is mounted twice is listed once.
fn hierarchies() -> Vec<(PathBuf, bool)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<(PathBuf, bool)> = Vec::new();
    let mut devices = Vec::new();
    for line in text.lines() {
        let Some((place, system)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = place.split(' ').collect();
        let (Some(device), Some(point)) = (fields.get(2), fields.get(4)) else { continue };
        let kind = system.split(' ').next().unwrap_or_default();
        if kind.starts_with("cgroup") && !devices.contains(&(*device).to_owned()) {
            devices.push((*device).to_owned());
            found.push((PathBuf::from(point), kind == "cgroup2"));
        }
    }
    found
}

/// Makes the group `name` (a path such as `node1` or `node1/kubelet`; what is above must exist) in every hierarchy.
pub fn create(name: &str) -> io::Result<()> {
    for (mount, is_v2) in hierarchies() {
        let dir = mount.join(name);
        if !dir.exists() {
            fs::create_dir(&dir).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", dir.display())))?;
        }
        if is_v2 {
            // Groups below may have processes, so only the node's own group hands controllers on.
            if !name.contains('/') {
                delegate(&dir);
            }
        } else if dir.join("cpuset.cpus").exists() {
            // Without processors and memory no process can join (Documentation/admin-guide/cgroup-v1/cpusets.rst).
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = dir.parent().unwrap_or(&mount).join(file);
                fs::write(dir.join(file), fs::read(above)?)?;
            }
            fs::write(dir.join("cgroup.clone_children"), "1")?;
        }
    }
    Ok(())
}

/// v2: what the group has is for the groups in it too. A hybrid machine's v2 has no controllers, and there is nothing to do.
fn delegate(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Moves this process into the group, in every hierarchy.
pub fn join(name: &str) -> io::Result<()> {
    for (mount, _) in hierarchies() {
        let file = mount.join(name).join("cgroup.procs");
        fs::write(&file, std::process::id().to_string())
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
    }
    Ok(())
}

/// SIGKILL to everything in the group and below, in every hierarchy, until nothing is there. Errors: something stays.
pub fn kill_all(name: &str) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut pids: Vec<i32> = Vec::new();
        for (mount, _) in hierarchies() {
            processes(&mount.join(name), &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| !is_zombie(*pid));
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() > end {
            return Err(io::Error::other(format!("processes of {name} survive SIGKILL: {pids:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Directories of the group in the hierarchies where it exists.
pub fn directories(name: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|(mount, _)| mount.join(name)).filter(|dir| dir.is_dir()).collect()
}

/// The directory called `leaf` anywhere below the group, in every hierarchy.
pub fn find(name: &str, leaf: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in directories(name) {
        find_in(&top, leaf, &mut found);
    }
    found
}

fn find_in(dir: &Path, leaf: &str, found: &mut Vec<PathBuf>) {
    for child in children(dir) {
        if child.ends_with(leaf) {
            found.push(child);
        } else {
            find_in(&child, leaf, found);
        }
    }
}

/// What the file holds in the first of these directories that has it, as that is how v1's controllers share out their files.
///
/// # Panics
/// Where none has it.
pub fn read(dirs: &[PathBuf], file: &str) -> String {
    let found = dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok());
    found.unwrap_or_else(|| panic!("no {file} in {dirs:?}")).trim().to_owned()
}

fn is_zombie(pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn processes(dir: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(dir) {
        processes(&child, pids);
    }
}

/// Removes the group and everything below it, in every hierarchy. Errors: one that stays busy.
pub fn remove(name: &str) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut left = None;
        for (mount, _) in hierarchies() {
            let dir = mount.join(name);
            if dir.exists()
                && let Err(e) = remove_tree(&dir)
            {
                left = Some(e);
            }
        }
        match left {
            None => return Ok(()),
            Some(e) if Instant::now() > end => return Err(e),
            // A group whose last process was just killed stays busy for a moment.
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(e.kind(), format!("{}: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}
