//! Of staging, without root. A disk that is full: `tests/cluster/tests/staging.rs`.
use super::*;
use std::os::unix::fs::PermissionsExt;

struct Fixture {
    dir: tempfile::TempDir,
    staging: Staging,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging { from: dir.path().join("runtime"), prefix: dir.path().join("opt/berth") };
        fs::create_dir(&staging.from).unwrap();
        Self { dir, staging }
    }

    fn image(&self, version: &str, content: &str) {
        let place = self.staging.from.join(version);
        let _ = fs::create_dir(&place);
        let mut list = String::new();
        for name in ["berth", "berth-init", "berth-monitor"] {
            let text = format!("{name} {content}");
            fs::write(place.join(name), &text).unwrap();
            let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
            let hex: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            list += &format!("{hex}  {name}\n");
        }
        fs::write(place.join("SHA256SUMS"), list).unwrap();
    }

    /// What is on the node, and nothing else may be.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.staging.prefix)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.staging.prefix.join(path)).unwrap()
    }
}

#[test]
fn versions_lie_side_by_side_and_nothing_is_switched() {
    let fixture = Fixture::new();
    fixture.image("0.1.0", "one");
    assert_eq!(fixture.staging.ensure().unwrap(), ["0.1.0"]);
    assert_eq!(fixture.names(), ["0.1.0"]);
    let mode = fs::metadata(fixture.staging.prefix.join("0.1.0/berth")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    std::os::unix::fs::symlink("0.1.0", fixture.staging.prefix.join("current")).unwrap();
    let written = |path: &str| fs::metadata(fixture.staging.prefix.join(path)).unwrap().modified().unwrap();
    let before = written("0.1.0/berth");
    fixture.image("0.2.0", "two");
    fixture.staging.ensure().unwrap();
    assert_eq!(written("0.1.0/berth"), before, "what is there is not written again");
    assert_eq!(fixture.names(), ["0.1.0", "0.2.0", "current"]);
    assert_eq!(fixture.text("current/berth"), "berth one");
    assert_eq!(fixture.text("0.2.0/berth-init"), "berth-init two");
}

/// A crash in the middle, a program that was cut short or changed: the next agent mends it.
#[test]
fn what_was_left_or_damaged_is_staged_anew() {
    let fixture = Fixture::new();
    fixture.image("0.1.0", "one");
    fs::create_dir_all(fixture.staging.prefix.join(".0.1.0.staging")).unwrap();
    fs::write(fixture.staging.prefix.join(".0.1.0.staging/berth"), "ber").unwrap();
    fixture.staging.ensure().unwrap();
    assert_eq!(fixture.names(), ["0.1.0"]);
    fs::write(fixture.staging.prefix.join("0.1.0/berth-monitor"), "berth-mon").unwrap();
    fixture.staging.ensure().unwrap();
    assert_eq!(fixture.text("0.1.0/berth-monitor"), "berth-monitor one");
    fs::remove_file(fixture.staging.prefix.join("0.1.0/SHA256SUMS")).unwrap();
    fixture.staging.ensure().unwrap();
    assert_eq!(fixture.names(), ["0.1.0"]);
}

#[test]
fn programs_in_use_are_not_replaced() {
    let fixture = Fixture::new();
    fixture.image("0.1.0", "one");
    fixture.staging.ensure().unwrap();
    std::os::unix::fs::symlink("0.1.0", fixture.staging.prefix.join("current")).unwrap();
    fixture.image("0.1.0", "another");
    let problem = fixture.staging.ensure().unwrap_err();
    assert!(matches!(&problem, Problem::Refused(why) if why.contains("needs another version")), "{problem}");
    assert_eq!(fixture.text("0.1.0/berth"), "berth one");
    fs::remove_file(fixture.staging.prefix.join("current")).unwrap();
    fixture.staging.ensure().unwrap();
    assert_eq!((fixture.text("0.1.0/berth").as_str(), fixture.names()), ("berth another", vec!["0.1.0".to_owned()]));
}

/// A program of a version, at work.
struct Running(std::process::Child);

impl Running {
    fn start(fixture: &Fixture, program: &str) -> Self {
        Self(std::process::Command::new(fixture.staging.prefix.join(program)).arg("600").spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn old_versions_go_that_nothing_runs_and_nobody_goes_back_to() {
    let fixture = Fixture::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.9.0", "0.10.0"] {
        fixture.image(version, version);
        fixture.staging.ensure().unwrap();
        fs::remove_dir_all(fixture.staging.from.join(version)).unwrap();
        // Another file for each: what runs is told by the file.
        fs::copy("/bin/sleep", fixture.staging.prefix.join(version).join("berth-monitor")).unwrap();
    }
    fixture.image("0.4.0", "0.4.0");
    let here = |name: &str| fixture.staging.prefix.join(name);
    for (link, version) in [("current", "0.9.0"), ("previous", "0.3.0")] {
        std::os::unix::fs::symlink(version, here(link)).unwrap();
    }
    // Of somebody else; and of a removal that was broken off.
    fs::create_dir_all(here("0.0.1")).unwrap();
    fs::create_dir_all(here(".0.0.2.removing/x")).unwrap();
    let proc = Path::new("/proc");
    let none: Vec<String> = Vec::new();
    assert_eq!(fixture.staging.remove_old(proc).unwrap(), none, "no process can be seen that runs a program from here");
    let monitor = Running::start(&fixture, "0.1.0/berth-monitor");
    let _daemon = Running::start(&fixture, "0.9.0/berth-monitor");
    assert_eq!(fixture.staging.remove_old(proc).unwrap(), ["0.2.0"]);
    assert_eq!(fixture.names(), ["0.0.1", "0.1.0", "0.10.0", "0.3.0", "0.4.0", "0.9.0", "current", "previous"]);
    drop(monitor);
    assert_eq!(fixture.staging.remove_old(proc).unwrap(), ["0.1.0"]);
    // Nobody said which one was before: the next older one is.
    fs::remove_file(here("previous")).unwrap();
    fs::remove_dir_all(fixture.staging.from.join("0.4.0")).unwrap();
    assert_eq!(fixture.staging.remove_old(proc).unwrap(), ["0.3.0"]);
    assert_eq!(fixture.names(), ["0.0.1", "0.10.0", "0.4.0", "0.9.0", "current"]);
}

#[test]
fn a_damaged_image_stages_nothing() {
    let fixture = Fixture::new();
    fixture.image("0.1.0", "one");
    fs::write(fixture.staging.from.join("0.1.0/berth-monitor"), "changed").unwrap();
    let problem = fixture.staging.ensure().unwrap_err();
    assert!(matches!(&problem, Problem::Refused(why) if why.contains("not what SHA256SUMS says")), "{problem}");
    assert!(fixture.names().is_empty(), "{:?}", fixture.names());
    fs::create_dir(fixture.staging.from.join("current")).unwrap();
    let problem = fixture.staging.ensure().unwrap_err();
    assert_eq!(problem.reason(), "ProgramsRefused");
    assert!(fixture.dir.path().exists());
}

#[test]
fn lists_name_files_beside_them() {
    let sum = "0f".repeat(32);
    assert!(Manifest::parse(&format!("{sum}  berth\n{sum}  berth-init\n")).is_ok());
    for bad in [
        String::new(),
        format!("{sum}  berth-init\n"),
        format!("{sum} berth\n"),
        format!("{sum}  ../berth\n"),
        format!("{sum}  .berth\n"),
        format!("{sum}  berth\n{sum}  berth\n"),
        format!("{}  berth\n", &sum[1..]),
        format!("{}  berth\n", sum.to_uppercase()),
        format!("{sum}  berth\n{sum}  SHA256SUMS\n"),
    ] {
        assert!(Manifest::parse(&bad).is_err(), "{bad:?}");
    }
    let many: String = (0..40).map(|i| format!("{sum}  berth{i}\n")).collect();
    assert!(Manifest::parse(&many).unwrap_err().contains("more than 32"));
}
