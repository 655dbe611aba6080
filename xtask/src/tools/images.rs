//! The images that tests with a real kubelet run, as OCI layouts: `busybox` and `agnhost`.
//! Owns: their inputs and their cache entry. Must not: know what lies where in them; `tests/images` does.
use super::kubernetes::kubernetes;
use crate::cache::Key;
use crate::{Result, cache, install, programs, run, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

const USERLAND_PACKAGES: [install::Package; 6] = [
    ("gcc", "gcc"),
    ("libc6-dev", "/usr/include/features.h"),
    ("linux-libc-dev", "/usr/include/linux/version.h"),
    ("make", "make"),
    ("bzip2", "bzip2"),
    ("dpkg-dev", "dpkg-source"),
];
/// Sources of the program that writes the images; a change in them makes new images.
const WRITER: [&str; 2] = ["tests/images/src/", "tests/registry/src/"];

/// A directory with the layouts `busybox` and `agnhost`, one image each.
pub fn images() -> Result<PathBuf> {
    let (userland, kubernetes) = (userland()?, kubernetes()?);
    // The entries' names are the hashes of what they are made from.
    let inputs = [&userland, &kubernetes].iter().fold(Key::default(), |key, dir| key.with(dir_name(dir).as_bytes()));
    let files = workspace::files()?;
    let mut sources = files.iter().filter(|file| WRITER.iter().any(|dir| file.starts_with(dir)));
    let inputs = inputs.with_file(&workspace::root().join("Cargo.lock"))?;
    let key = sources.try_fold(inputs, |key, file| key.with_file(&workspace::root().join(file)))?;
    cache::entry("images", &key, |dir| {
        println!("   writing the test images");
        let writer = programs::everything()?.bin.join("berth-test-images");
        run::plain(Command::new(writer).arg(&userland).arg(&kubernetes).arg(dir))
    })
}

/// Static BusyBox and bash.
pub fn userland() -> Result<PathBuf> {
    let scripts = workspace::root().join("xtask");
    let script = scripts.join("images/build-userland");
    let key = Key::default().with_file(&script)?.with_file(&scripts.join("guest/suite-sources"))?;
    // Another release has other sources.
    let key = key.with_file(Path::new("/etc/os-release"))?;
    cache::entry("userland", &key, |dir| {
        println!("   building BusyBox from Debian's source, once: a minute or two");
        install::packages(&USERLAND_PACKAGES)?;
        run::plain(Command::new(&script).arg(dir))
    })
}

fn dir_name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
