//! What tests need of others and what is slow to build, made ahead: one after the other, into the cache, by a process that gets what the rest
//! of the run leaves of the processors. Whoever needs one meanwhile waits for it, or makes it first.
//! Owns: what is made ahead for which tier. Must not: decide whether it could be made; the tier that needs it says so.
use super::guest::Guest;
use crate::{Result, install, tools, workspace};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

type Make = fn() -> Result<PathBuf>;

/// In the order in which the tiers come to need them. None of them uses cargo, whose lock on the target directory they would hold.
const MAKES: [(&str, &[&str], Make); 11] = [
    ("kubelet-flags", &["unit"], tools::kubelet_flags),
    ("crictl", &["node", "guest", "cluster", "full"], tools::crictl),
    ("cni", &["node", "guest", "cluster", "full"], tools::cni),
    ("prometheus", &["node", "guest", "cluster", "full"], tools::prometheus),
    ("guest-kernel", &["guest"], Guest::kernel),
    ("guest-root", &["guest"], Guest::root),
    ("kubernetes", &["guest", "cluster", "full"], tools::kubernetes),
    ("peers", &["guest", "cluster", "full"], tools::peers),
    ("etcd", &["cluster", "full"], tools::etcd),
    ("helm", &["cluster", "full"], tools::helm),
    ("userland", &["cluster", "full"], tools::userland),
];

/// It ends with whoever started it, and with it all that it started. In a session of its own: the kernel shares time out among sessions first
/// (sched(7), autogroup), and the tests' daemons have sessions of their own.
const LAST: &str = "--pdeathsig KILL setsid unshare --pid --fork --kill-child --";
/// Nobody who wants the processor gets less of it.
const LEAST: &str = r#"echo 19 2>/dev/null >/proc/self/autogroup || true; exec nice -n 19 "$@""#;

/// The process that makes them, to the end of its list: the next run finds what this one did not wait for.
pub struct Ahead(Child);

/// Starts it, where one of these tiers needs any of them and this is root.
pub fn start(tiers: &[&str]) -> Option<Ahead> {
    let needed = |(_, of, _): &&(&str, &[&str], Make)| of.iter().any(|tier| tiers.contains(tier));
    let names: Vec<&str> = MAKES.iter().filter(needed).map(|(name, ..)| *name).collect();
    if names.is_empty() || !install::is_root().unwrap_or(false) {
        return None;
    }
    let log = workspace::target_dir().join("ahead.log");
    let file = File::create(&log).ok()?;
    println!("made ahead, with what is left of the processors ({}): {}", log.display(), names.join(" "));
    let mut command = Command::new("setpriv");
    command.args(LAST.split(' ')).args(["sh", "-c", LEAST, "sh"]);
    command.arg(std::env::current_exe().ok()?).arg("ahead").args(names);
    command.stdin(Stdio::null()).stdout(file.try_clone().ok()?).stderr(file).spawn().ok().map(Ahead)
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            println!("what is made ahead is not all there yet: waiting, so that the next run finds it");
            let _ = self.0.wait();
        }
    }
}

/// Makes the named ones. What fails is told here, and is tried again by whoever needs it.
pub fn main(names: &[String]) -> Result {
    for (name, _, make) in MAKES.iter().filter(|(name, ..)| names.iter().any(|n| n == name)) {
        println!("-- {name}");
        match make() {
            Ok(place) => println!("-- {name}: {}", place.display()),
            Err(e) => println!("-- {name}: {e}"),
        }
    }
    Ok(())
}
