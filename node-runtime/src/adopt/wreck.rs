//! Ends Berth's pods where its daemon cannot be made to run any more, and the node is to leave it: by what the kernel has of them.
//!
//! Owns: finding monitors and what descends from them, ending both, taking away what they leave mounted. Must not: be used while a daemon
//! answers. The pods' records stay for the next daemon, and with them what only a daemon knows how to give back: addresses, rules.
use crate::layout::Layout;
use crate::node_files::{self, MAX_FILE};
use anyhow::{Context, Result, bail};
use berth_cgroups::{Cgroups, Driver};
use rustix::mount::{UnmountFlags, unmount};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long all of it may take to end.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Most mounts that are taken away.
const MAX_MOUNTS: usize = 16384;

/// Ends every pod of this root. Errors: something does not end, or stays mounted.
pub(super) async fn end_pods(layout: &Layout) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let monitors = monitors(layout);
    // They reap what is ended here, and adopt what its parent leaves, so that nothing can hide.
    loop {
        let below = descendants(&monitors);
        if below.is_empty() {
            break;
        }
        below.iter().for_each(|pid| kill(*pid, |pid| descendants(&monitors).contains(&pid)));
        if Instant::now() > end {
            bail!("processes {below:?} of Berth's pods do not end");
        }
        tokio::time::sleep(PAUSE).await;
    }
    monitors.iter().for_each(|pid| kill(*pid, |pid| is_monitor(pid, layout)));
    while !self::monitors(layout).is_empty() {
        if Instant::now() > end {
            bail!("the monitors {monitors:?} of Berth's pods do not end");
        }
        tokio::time::sleep(PAUSE).await;
    }
    unmount_all(layout)?;
    leave_groups(layout).await
}

/// The descriptor can mean nobody else once `still` has been asked after it was opened.
fn kill(pid: u32, still: impl Fn(u32) -> bool) {
    if let Ok(process) = berth_sys::pidfd::open(pid)
        && still(pid)
    {
        let _ = berth_sys::pidfd::signal(process.as_fd(), 9);
    }
}

fn monitors(layout: &Layout) -> BTreeSet<u32> {
    node_files::processes().into_iter().filter(|pid| is_monitor(*pid, layout)).collect()
}

/// `berth-monitor --pod POD --dir DIR` of this root.
fn is_monitor(pid: u32, layout: &Layout) -> bool {
    let line = node_files::bytes(format!("/proc/{pid}/cmdline"), MAX_FILE).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    let [program, _, _, option, dir, ..] = words[..] else { return false };
    program.ends_with(b"berth-monitor")
        && option == b"--dir"
        && Path::new(std::ffi::OsStr::from_bytes(dir)).starts_with(&layout.run)
}

/// Processes below these, zombies left out.
fn descendants(roots: &BTreeSet<u32>) -> BTreeSet<u32> {
    let parents: BTreeMap<u32, u32> = node_files::processes()
        .into_iter()
        .filter_map(|pid| {
            let text = node_files::text(format!("/proc/{pid}/stat"))?;
            let mut fields = text.rsplit_once(") ")?.1.split(' ');
            let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
            (state != "Z").then_some((pid, parent))
        })
        .collect();
    let below = |pid: u32| {
        std::iter::successors(Some(pid), |pid| parents.get(pid).copied())
            .skip(1)
            .take(parents.len())
            .any(|p| roots.contains(&p))
    };
    parents.keys().copied().filter(|pid| !roots.contains(pid) && below(*pid)).collect()
}

/// What is mounted below Berth's directories, the deepest first. The table is read anew each time: it changes with every unmount.
fn unmount_all(layout: &Layout) -> Result<()> {
    for _ in 0..MAX_MOUNTS {
        let table = node_files::contents("/proc/self/mountinfo", MAX_FILE * 16)?;
        let places = table.lines().filter_map(|line| Some(unescaped(line.split(' ').nth(4)?)));
        let ours = |place: &PathBuf| place.starts_with(&layout.run) || place.starts_with(&layout.lib);
        // The directories themselves may be disks.
        let inside = places.filter(|place| ours(place) && *place != layout.lib && *place != layout.run);
        let Some(place) = inside.max_by_key(|place| place.components().count()) else { return Ok(()) };
        unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).with_context(|| place.display().to_string())?;
    }
    bail!("more than {MAX_MOUNTS} mounts are below {}", layout.run.display())
}

/// Spaces and the like are octal in that table (proc_pid_mountinfo(5)).
fn unescaped(text: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Control groups of its own processes; those of pods are the kubelet's to remove.
async fn leave_groups(layout: &Layout) -> Result<()> {
    if Cgroups::default_driver() == Driver::Systemd {
        return Ok(());
    }
    let cgroups = Cgroups::probe(Driver::Cgroupfs)?;
    for name in [format!("{}-runtime", layout.name()), layout.name()] {
        let path = cgroups.parent(&name)?;
        cgroups.kill(&path, LIMIT)?;
        cgroups.remove(&path).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_descends_is_found() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 5 & sleep 5; true"]).spawn().unwrap();
        let roots = BTreeSet::from([shell.id()]);
        let end = Instant::now() + Duration::from_secs(5);
        while descendants(&roots).len() < 2 && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        let found = descendants(&roots);
        assert_eq!(found.len(), 2, "{found:?}");
        found.iter().for_each(|pid| kill(*pid, |pid| descendants(&roots).contains(&pid)));
        kill(shell.id(), |_| true);
        shell.wait().unwrap();
        assert_eq!(unescaped("/run/a\\040b\\134"), Path::new("/run/a b\\"));
    }
}
