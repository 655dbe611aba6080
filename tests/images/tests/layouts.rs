//! The program on made-up inputs: what lies where in the images, and that equal inputs give equal images.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

use berth_test_registry::{Options, Registry};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-images-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Inputs with these names of applets.
    fn inputs(&self, applets: &str) {
        let files = [("busybox", "B"), ("applets", applets), ("bash", "S"), ("agnhost", "A")];
        for (name, content) in files.into_iter().chain([("localhost.crt", "C"), ("localhost.key", "K")]) {
            fs::write(self.0.join(name), content).unwrap();
        }
    }

    fn run(&self, out: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth-test-images"));
        command.arg(&self.0).arg(&self.0).arg(self.0.join(out)).output().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What tar says of all layers of a layout, one member a line.
fn members(layout: &Path) -> String {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let listed = blobs.map(|blob| Command::new("tar").arg("-tvzf").arg(blob).output().unwrap());
    // A manifest or a configuration is no archive.
    listed.filter(|output| output.status.success()).map(|output| String::from_utf8(output.stdout).unwrap()).collect()
}

#[tokio::test]
async fn applets_are_hard_links_and_agnhost_has_what_its_image_has() {
    let dir = Dir::new("content");
    dir.inputs("busybox\nls\nsh\n");
    let output = dir.run("out");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let busybox = members(&dir.0.join("out/busybox"));
    for applet in ["ls", "sh"] {
        assert!(busybox.contains(&format!("bin/{applet} link to bin/busybox")), "{busybox}");
    }
    assert!(!busybox.contains("bin/busybox link to"), "{busybox}");
    let agnhost = members(&dir.0.join("out/agnhost"));
    for (mode, name) in
        [("-rwxr-xr-x", "agnhost"), ("-rwxr-xr-x", "bin/bash"), ("-rwxr-xr-x", "bin/curl"), ("drwxrwxrwt", "tmp/")]
    {
        assert!(agnhost.lines().any(|l| l.starts_with(mode) && l.ends_with(&format!(" {name}"))), "{name}: {agnhost}");
    }
    // Both can be served as they are, and share their lowest layer.
    let registry = Registry::start(Options::default()).await.unwrap();
    for name in ["busybox", "agnhost"] {
        let pushed = registry.push_layout(name, None, &dir.0.join("out").join(name)).unwrap();
        assert_eq!(pushed[0].0, "v1");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("{name}:v1@{}", pushed[0].1)));
    }
    let count = |name: &str| fs::read_dir(dir.0.join("out").join(name).join("blobs/sha256")).unwrap().count();
    assert_eq!((count("busybox"), count("agnhost")), (3, 4));
}

#[test]
fn equal_inputs_give_equal_digests_and_a_missing_one_is_named() {
    let dir = Dir::new("equal");
    dir.inputs("busybox\nls\n");
    let first = dir.run("one");
    assert!(first.status.success() && first.stdout == dir.run("two").stdout);
    fs::write(dir.0.join("agnhost"), "another").unwrap();
    assert_ne!(first.stdout, dir.run("three").stdout);
    fs::remove_file(dir.0.join("bash")).unwrap();
    let failed = dir.run("four");
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && told.contains("bash"), "{told}");
}
