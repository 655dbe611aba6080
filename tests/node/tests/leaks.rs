//! The leak counter tells one planted leak of each kind, tells nothing else, and nothing once they are removed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test may fail at any line.

use berth_leaks::{Kind, Leak, Scope, Snapshot, diff, settle};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Planted things; they are taken away however the test ends.
struct Planted {
    word: String,
    dir: PathBuf,
    cgroup: PathBuf,
    children: Vec<Child>,
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}

impl Planted {
    fn all(word: &str, dir: &Path) -> Self {
        let mut planted =
            Self { word: word.into(), dir: dir.into(), cgroup: first_hierarchy().join(word), children: Vec::new() };
        let path = |name: &str| dir.join(name).display().to_string();

        // A process of ours by name, and one that is known only by its namespaces.
        let program = dir.join("berth-planted");
        // By a process of its own: what this one has open for writing a child of another test may have for a moment, and nobody may run it then.
        run("cp", &["/bin/sleep", &path("berth-planted")]);
        planted.children.push(Command::new(&program).args(["600.1"]).spawn().unwrap());
        let hidden = format!("exec -a {word}-hidden sleep 600.2");
        planted.children.push(Command::new("unshare").args(["--ipc", "bash", "-c", &hidden]).spawn().unwrap());

        std::fs::create_dir(dir.join("mount")).unwrap();
        run("mount", &["-t", "tmpfs", word, &path("mount")]);
        std::fs::write(dir.join("netns"), "").unwrap();
        run("unshare", &[&format!("--net={}", path("netns")), "true"]);
        std::fs::create_dir(&planted.cgroup).unwrap();
        run("ip", &["link", "add", word, "type", "bridge"]);
        run("nft", &["add", "table", "inet", word]);
        planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let quiet = |program: &str, args: &[&str]| {
            let _ = Command::new(program).args(args).stderr(Stdio::null()).status();
        };
        quiet("nft", &["delete", "table", "inet", &self.word]);
        quiet("ip", &["link", "delete", &self.word]);
        let _ = std::fs::remove_dir(&self.cgroup);
        quiet("umount", &[&self.dir.join("netns").display().to_string()]);
        quiet("umount", &[&self.dir.join("mount").display().to_string()]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The first control group hierarchy of this machine, v1 or v2.
fn first_hierarchy() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let line = mounts.lines().find(|l| matches!(l.split(' ').nth(2), Some("cgroup" | "cgroup2")));
    line.and_then(|l| l.split(' ').nth(1)).expect("no control groups are mounted").into()
}

#[test]
fn one_leak_of_each_kind_is_told() {
    let word = berth_node_tests::unique("leak");
    let dir = std::env::temp_dir().join(&word);
    let scope = Scope { roots: vec![dir.clone()], words: vec![word.clone()] };
    let before = Snapshot::take(&scope).unwrap();
    assert_eq!(diff(&scope, &before, &Snapshot::take(&scope).unwrap()), [], "nothing was planted yet");

    std::fs::create_dir(&dir).unwrap();
    let planted = Planted::all(&word, &dir);
    let expected: [(Kind, &str, usize); 8] = [
        (Kind::Process, "berth-planted", 1),
        (Kind::Process, "-hidden", 1),
        (Kind::Namespace, "net:[", 1),
        (Kind::Namespace, "ipc:[", 1),
        (Kind::Mount, "/mount (tmpfs", 1),
        (Kind::Cgroup, &word, 1),
        (Kind::Link, &word, 1),
        (Kind::NftTable, "inet", 1),
    ];
    // The directory, the program and the two mount points; and one more mount, which pins the network namespace.
    let all = expected.len() + 4 + 1;
    // What is hidden gets its namespace, and bash becomes sleep, in their own time.
    let end = Instant::now() + Duration::from_secs(30);
    let mut leaks = diff(&scope, &before, &Snapshot::take(&scope).unwrap());
    while leaks.len() != all && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        leaks = diff(&scope, &before, &Snapshot::take(&scope).unwrap());
    }
    let found = |kind: Kind, text: &str| leaks.iter().filter(|l| l.kind == kind && l.what.contains(text)).count();
    for (kind, text, count) in expected {
        assert_eq!(found(kind, text), count, "{kind:?} {text}: {leaks:#?}");
    }
    assert_eq!(found(Kind::File, ""), 4, "{leaks:#?}");
    assert_eq!(found(Kind::Mount, "/netns (nsfs"), 1, "{leaks:#?}");
    assert_eq!(leaks.len(), all, "something that was not planted is told: {leaks:#?}");
    for Leak { what, .. } in &leaks {
        assert!(what.contains(&word), "{what} does not say whose it is");
    }

    drop(planted);
    assert_eq!(settle(&scope, &before, Duration::from_secs(10)).unwrap(), []);
}

#[test]
fn a_zombie_is_a_process() {
    // All that is left of it is its name, cut to 15 bytes.
    let word: String = berth_node_tests::unique("berth-z").chars().take(15).collect();
    let scope = Scope { roots: Vec::new(), words: vec![word.clone()] };
    let before = Snapshot::take(&scope).unwrap();
    let program = std::env::temp_dir().join(&word);
    run("cp", &["/bin/true", &program.display().to_string()]);
    let mut child = Command::new(&program).spawn().unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    let end = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let leaks = diff(&scope, &before, &Snapshot::take(&scope).unwrap());
    child.wait().unwrap();
    std::fs::remove_file(&program).unwrap();
    assert!(leaks.len() == 1 && leaks[0].what.contains("not reaped"), "{leaks:?}");
    assert_eq!(settle(&scope, &before, Duration::from_secs(30)).unwrap(), []);
}
