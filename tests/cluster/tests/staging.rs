//! The agent's staging on a disk that is full, of bytes and of inodes: nothing half-written stays, what is wrong is told as such, and with room it comes
//! off. As root: it mounts such a disk.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

use berth_agent::stage::{Problem, Staging};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PROGRAMS: [&str; 3] = ["berth", "berth-init", "berth-monitor"];
/// Bytes of each program.
const SIZE: usize = 1 << 20;

/// A program that can be run, of that size.
fn content(name: &str) -> Vec<u8> {
    let mut bytes = fs::read("/bin/sleep").unwrap();
    assert!(bytes.len() < SIZE);
    bytes.resize(SIZE, u8::try_from(name.len()).unwrap());
    bytes
}

/// A node's disk, with an image beside it.
struct Disk {
    dir: tempfile::TempDir,
    staging: Staging,
}

impl Disk {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (opt, image) = (dir.path().join("opt"), dir.path().join("runtime/0.1.0"));
        fs::create_dir_all(&opt).unwrap();
        fs::create_dir_all(&image).unwrap();
        PROGRAMS.iter().for_each(|name| fs::write(image.join(name), content(name)).unwrap());
        let sums = Command::new("sha256sum").current_dir(&image).args(PROGRAMS).output().unwrap();
        fs::write(image.join("SHA256SUMS"), sums.stdout).unwrap();
        mount(Some("tmpfs"), &opt, Some("tmpfs"), MsFlags::empty(), Some(options)).expect("this needs root");
        let staging = Staging { from: dir.path().join("runtime"), prefix: opt.join("berth") };
        Self { dir, staging }
    }

    fn opt(&self) -> PathBuf {
        self.dir.path().join("opt")
    }

    fn grow(&self, options: &str) {
        mount(Some("tmpfs"), &self.opt(), Some("tmpfs"), MsFlags::MS_REMOUNT, Some(options)).unwrap();
    }

    fn stages(&self) {
        assert_eq!(self.staging.ensure().unwrap(), ["0.1.0"]);
        let staged = self.staging.prefix.join("0.1.0");
        let same = |name: &&str| fs::read(staged.join(name)).unwrap() == content(name);
        assert!(PROGRAMS.iter().all(same));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.opt(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_disk_without_room_keeps_nothing_and_is_named() {
    let disk = Disk::new("size=2m");
    let problem = disk.staging.ensure().unwrap_err();
    let told = |word: &str| problem.to_string().contains(word);
    let place = disk.staging.prefix.display().to_string();
    assert!(matches!(&problem, Problem::Full(_)) && told(&place), "{problem}");
    assert!(told("has 2048 KiB free") && told("need 4096 KiB: 2048 KiB are missing; make room"), "{problem}");
    assert_eq!(problem.reason(), "InsufficientDisk");
    assert!(names(&disk.staging.prefix).is_empty());
    disk.grow("size=16m");
    disk.stages();
}

/// The room looks as if it sufficed; what runs out in the middle of writing is something else.
#[test]
fn a_disk_that_gets_full_while_it_is_written_keeps_nothing() {
    let disk = Disk::new("size=16m,nr_inodes=5");
    let problem = disk.staging.ensure().unwrap_err();
    assert!(matches!(&problem, Problem::Full(why) if why.contains("make room")), "{problem}");
    assert!(names(&disk.staging.prefix).is_empty(), "{:?}", names(&disk.staging.prefix));
    disk.grow("size=16m,nr_inodes=100");
    disk.stages();
}

/// A version of before stays whole when the next one finds no room.
#[test]
fn the_version_in_use_stays() {
    let disk = Disk::new("size=5m");
    disk.stages();
    std::os::unix::fs::symlink("0.1.0", disk.staging.prefix.join("current")).unwrap();
    let (old, new) = (disk.staging.from.join("0.1.0"), disk.staging.from.join("0.2.0"));
    fs::create_dir(&new).unwrap();
    for name in PROGRAMS.iter().chain(&["SHA256SUMS"]) {
        fs::copy(old.join(name), new.join(name)).unwrap();
    }
    // What runs goes on, and can be started again.
    let run = || loop {
        match Command::new(disk.staging.prefix.join("current/berth-init")).arg("600").spawn() {
            // A child of another test has for a moment what was open for writing when it was made.
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => std::thread::sleep(Duration::from_millis(20)),
            other => return other.unwrap(),
        }
    };
    let mut running = run();
    assert!(matches!(disk.staging.ensure(), Err(Problem::Full(_))));
    assert_eq!(running.try_wait().unwrap(), None);
    for mut process in [running, run()] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let mut left = names(&disk.staging.prefix);
    left.sort();
    assert_eq!(left, ["0.1.0", "current"]);
    fs::remove_dir_all(new).unwrap();
    disk.stages();
}
