//! The runtime's programs, from the agent's image onto the node's disk: `PREFIX/<version>`, whole or not at all.
//!
//! Staging switches nothing: `PREFIX/current` is pointed elsewhere by a rollout (`host::restart`) or by `berth adopt`. Format:
//! docs/formats/staged-programs.md. Must not: touch a version that is in use, or `current`; start anything.
mod copy;
mod manifest;
mod old;
mod stager;

pub use manifest::Manifest;
pub use stager::Stager;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What must stay free on the node's disk beside the programs: a node without any room is worse than one without them.
const RESERVE: u64 = 1 << 20;

/// Links beside the versions: to the one that the node runs, and to the one before it.
pub(crate) const LINKS: [&str; 2] = ["current", "previous"];

/// Why programs were not staged. The node is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no room.
    Full(String),
    /// The image's programs are not those that its list names, or somebody else's lie in the way.
    Refused(String),
    /// Something of the system's.
    Failed(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(why) | Self::Refused(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Problem {
    /// One word for it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full(_) => "InsufficientDisk",
            Self::Refused(_) => "ProgramsRefused",
            Self::Failed(_) => "NotStaged",
        }
    }

    /// Of that file.
    fn of(path: &Path, error: &io::Error) -> Self {
        let text = format!("{}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(format!(
                "{text}: the disk got full, of bytes or of inodes, while the programs were written: make room, it is tried again"
            )),
            _ => Self::Failed(text),
        }
    }
}

/// Where programs come from and go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// Directory of versions in the image.
    pub from: PathBuf,
    /// Directory of versions on the node.
    pub prefix: PathBuf,
}

impl Staging {
    /// Has every version of the image on the node, compared by hash: those that are there are left alone. The names of the image's versions.
    /// Errors: [`Problem`]; what was begun is removed again.
    pub fn ensure(&self) -> Result<Vec<String>, Problem> {
        let versions = self.versions()?;
        for version in &versions {
            self.stage(version)?;
        }
        Ok(versions)
    }

    fn versions(&self) -> Result<Vec<String>, Problem> {
        let listed = fs::read_dir(&self.from).map_err(|e| Problem::of(&self.from, &e))?;
        let mut names: Vec<String> = listed.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        match names.iter().find(|name| !is_version(name)) {
            Some(bad) => Err(Problem::Refused(format!("{}: {bad:?} is no version", self.from.display()))),
            None => Ok(names),
        }
    }

    fn stage(&self, version: &str) -> Result<(), Problem> {
        let (from, to) = (self.from.join(version), self.prefix.join(version));
        let manifest = Manifest::read(&from)?;
        if manifest.fits(&to) {
            return Ok(());
        }
        if self.in_use(version) {
            return Err(Problem::Refused(format!(
                "{} has other programs than this image has under version {version}, and the node runs them: \
                an image with other programs needs another version",
                to.display()
            )));
        }
        fs::create_dir_all(&self.prefix).map_err(|e| Problem::of(&self.prefix, &e))?;
        let new = self.prefix.join(format!(".{version}.staging"));
        let staged = copy::remove(&new)
            .and_then(|()| self.room(&from, &manifest))
            .and_then(|()| copy::programs(&from, &new, &manifest))
            .and_then(|()| copy::put(&new, &to, &self.prefix));
        if staged.is_err() {
            // What failed is told; that it cannot be tidied up is not more than that.
            let _ = copy::remove(&new);
        }
        staged
    }

    /// Whether `current` names it.
    fn in_use(&self, version: &str) -> bool {
        fs::read_link(self.prefix.join("current")).is_ok_and(|now| now == Path::new(version))
    }

    fn room(&self, from: &Path, manifest: &Manifest) -> Result<(), Problem> {
        let sizes = manifest.names().map(|name| fs::metadata(from.join(name)).map(|meta| meta.len()));
        let needed: u64 = sizes.sum::<io::Result<u64>>().map_err(|e| Problem::of(from, &e))? + RESERVE;
        let disk = rustix::fs::statvfs(&self.prefix).map_err(|e| Problem::of(&self.prefix, &e.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= needed {
            return Ok(());
        }
        Err(Problem::Full(format!(
            "{}: the disk has {} KiB free, and the programs need {} KiB: {} KiB are missing; make room, it is tried again",
            self.prefix.display(),
            free >> 10,
            needed >> 10,
            (needed - free).div_ceil(1 << 10)
        )))
    }
}

/// It becomes a path.
fn is_version(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    !name.is_empty() && !name.starts_with('.') && !LINKS.contains(&name) && name.len() <= 64 && name.chars().all(word)
}

#[cfg(test)]
mod tests;
