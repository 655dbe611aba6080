//! Masked and read-only paths.
//!
//! Owns: covering them with files of ours, by descriptor (CVE-2025-31133). Must not: follow a link out of the root.
use crate::failure::{Explain, Failure, Result};
use crate::mounts;
use crate::root::Root;
use berth_sys::mount::{self, Change, attr};
use berth_sys::openat::{self, Access, Kind, magic};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Hides every path that exists: a file behind the null device, a directory behind one shared, empty, read-only tmpfs.
pub fn mask(root: &Root, paths: &[PathBuf], null: OwnedFd) -> Result<()> {
    let mut null = Cover::new(null);
    let mut empty: Option<Cover> = None;
    for path in paths {
        let what = || format!("mask {}", path.display());
        let Some(target) = existing(root, path)? else { continue };
        if openat::facts(target.as_fd()).explain(what)?.kind == Kind::Directory {
            if empty.is_none() {
                let attributes = attr::RDONLY | attr::QUIET;
                empty = Some(Cover::new(mounts::tmpfs(4096, 0o755, attributes)?));
            }
            empty.iter_mut().try_for_each(|cover| cover.put_on(&target)).explain(what)?;
        } else {
            null.put_on(&target).explain(what)?;
        }
    }
    Ok(())
}

/// Makes every path that exists read-only, with all below it; other attributes stay.
pub fn make_read_only(root: &Root, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let what = || format!("make {} read-only", path.display());
        let Some(target) = existing(root, path)? else { continue };
        let tree = mount::clone_fd(target.as_fd(), true).explain(what)?;
        mount::change(tree.as_fd(), true, &Change { set: attr::RDONLY, ..Change::default() }).explain(what)?;
        mount::attach(tree.as_fd(), target.as_fd()).explain(what)?;
    }
    Ok(())
}

/// A mount that covers many places: attached once, and copied from there, which kernels before 6.15 allow for attached ones
/// only.
struct Cover {
    tree: OwnedFd,
    attached: bool,
}

impl Cover {
    fn new(tree: OwnedFd) -> Self {
        Self { tree, attached: false }
    }

    fn put_on(&mut self, target: &OwnedFd) -> io::Result<()> {
        if self.attached {
            let copy = mount::clone_fd(self.tree.as_fd(), false)?;
            return mount::attach(copy.as_fd(), target.as_fd());
        }
        mount::attach(self.tree.as_fd(), target.as_fd())?;
        self.attached = true;
        Ok(())
    }
}

fn existing(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    let found = match root.open(path, Access::Path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.explain(|| format!("open {} to hide it", path.display()))?,
    };
    for (top, file_system) in [("/proc", magic::PROC), ("/sys", magic::SYSFS)] {
        if path.starts_with(top) {
            // Hiding something in a false /proc would leave the real one open, wherever it is.
            let top_fd = root.open(Path::new(top), Access::Path).explain(|| format!("open {top}"))?;
            if openat::file_system(top_fd.as_fd()).explain(|| format!("statfs {top}"))? != file_system {
                return Err(Failure::refused(format!(
                    "{} cannot be hidden: {top} is not the kernel's",
                    path.display()
                )));
            }
        }
    }
    Ok(Some(found))
}
