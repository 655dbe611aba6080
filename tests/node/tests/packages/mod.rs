//! Package managers on a node, and the node as they leave it.
//!
//! Owns: what an administrator types. Must not: help the package along; what its scripts do not do is not done.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

pub mod node;
pub mod pods;
pub mod session;

use crate::daemon::host;
use berth_node_tests::path_from_env;
use std::path::PathBuf;
use std::process::Command;

/// A package manager with two releases of the package.
pub trait Tool {
    /// Installs, upgrades or downgrades to this release.
    fn install(&self, release: u32);
    /// The release that is installed.
    fn release(&self) -> Option<u32>;
    /// What an administrator does after an installation so that the service runs.
    fn starts(&self);
    /// Removes it.
    fn remove(&self);
    /// Removes it with everything that it stored.
    fn purge(&self);
}

/// The package of that name whose file ends so.
fn package(name: &str, end: &str) -> String {
    let dir = path_from_env("BERTH_PACKAGES");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let begins = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    found.retain(|path| begins(path) && path.to_string_lossy().ends_with(end));
    assert_eq!(found.len(), 1, "packages {name}*{end} in {}: {found:?}", dir.display());
    found[0].display().to_string()
}

/// dpkg, about the plugin's package.
pub fn plugin(args: &[&str]) {
    host("dpkg", args);
}

/// The plugin's package of that release.
pub fn plugin_file(release: u32) -> String {
    package("kubectl-berth_", &format!("-{release}_amd64.deb"))
}

/// dpkg of the guest.
pub struct Deb;

impl Tool for Deb {
    fn install(&self, release: u32) {
        host("dpkg", &["--install", &package("berth_", &format!("-{release}_amd64.deb"))]);
        // The guest leaves documentation out.
        let left_out = |line: &&str| {
            ["/usr/share/doc/", "/usr/share/man/", " c /etc/berth/"].iter().any(|place| line.contains(place))
        };
        let wrong = host("dpkg", &["--verify", "berth"]);
        assert_eq!(wrong.lines().filter(|line| !left_out(line)).collect::<Vec<_>>(), [""; 0]);
    }

    fn release(&self) -> Option<u32> {
        let version = host("dpkg-query", &["--show", "--showformat=${Version}", "berth"]);
        version.rsplit_once('-')?.1.parse().ok()
    }

    fn starts(&self) {
        // Debian's packages start what they bring.
    }

    fn remove(&self) {
        host("dpkg", &["--remove", "berth"]);
    }

    fn purge(&self) {
        host("dpkg", &["--purge", "berth"]);
    }
}

/// rpm, brought along: the guest's distribution has another package manager.
pub struct Rpm;

impl Rpm {
    fn run(args: &[&str]) -> String {
        let tool = path_from_env("BERTH_PACKAGES").join("rpm-tool");
        let mut command = Command::new(tool.join("rpm"));
        command.env("LD_LIBRARY_PATH", tool.join("lib")).env("RPM_CONFIGDIR", tool.join("config"));
        // A database of its own, which knows nothing of the guest's libraries.
        command.arg("--dbpath=/tmp/rpm-database").args(args);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "rpm {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
}

impl Tool for Rpm {
    fn install(&self, release: u32) {
        let file = package("berth-", &format!("-{release}.x86_64.rpm"));
        Self::run(&["--upgrade", "--oldpackage", "--nodeps", "--nosignature", &file]);
        let changed = Self::run(&["--query", "--queryformat", "%{NAME}", "berth"]);
        assert_eq!(changed, "berth");
    }

    fn release(&self) -> Option<u32> {
        Self::run(&["--query", "--queryformat", "%{RELEASE}", "berth"]).parse().ok()
    }

    fn starts(&self) {
        host("systemctl", &["enable", "--now", "berth.service"]);
    }

    fn remove(&self) {
        Self::run(&["--erase", "berth"]);
    }

    fn purge(&self) {
        host("/usr/libexec/berth/uninstall", &[]);
        self.remove();
    }
}
