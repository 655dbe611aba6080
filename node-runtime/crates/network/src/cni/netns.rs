//! The network namespace that a DEL names: by its path while it is pinned there, else by a descriptor that keeps it alive, so
//! that a DEL which is tried again can still take things out of it.
//! Must not: make or enter namespaces.
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A namespace that is kept alive.
#[derive(Debug)]
pub(super) struct Held(File);

impl Held {
    /// Keeps the namespace that is pinned at the path; `None` when there is none.
    pub(super) fn at(path: &str) -> Option<Self> {
        is_pinned(path).then(|| File::open(path).ok()).flatten().map(Self)
    }

    /// Where a plugin finds it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Whether a namespace is pinned at the path: the file that it was pinned on stays when it is gone.
pub(super) fn is_pinned(path: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    !path.is_empty()
        && device(Path::new(path)).is_some_and(|found| Some(found) == device(Path::new("/proc/self/ns/net")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_from_the_file_it_was_pinned_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(is_pinned("/proc/self/ns/net"));
        assert!(!is_pinned(&file.path().to_string_lossy()) && !is_pinned("") && !is_pinned("/nonexistent"));
        let held = Held::at("/proc/self/ns/net").unwrap();
        assert_eq!(fs::read_link(held.path()).unwrap(), fs::read_link("/proc/self/ns/net").unwrap());
    }
}
