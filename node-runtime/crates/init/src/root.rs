//! Paths in a container, resolved below its root whatever links the image has.
//!
//! Owns: resolution and creation of mount points (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579). Must not: use a path of
//! the process's own root.
use crate::failure::{Explain, Failure, Result};
use berth_sys::openat::{self, Access, Kind, Walk};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: u32 = 40;

/// What must be at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A directory.
    Directory,
    /// Anything that is not a directory.
    File,
}

/// A container's root directory.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The root that a descriptor refers to.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The directory.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens what `path` leads to.
    pub fn open(&self, path: &Path, access: Access) -> io::Result<OwnedFd> {
        openat::open_below(self.0.as_fd(), or_here(path), access, Walk::InRoot)
    }

    /// Opens what `path` leads to; links on the way are refused (ELOOP).
    pub fn open_without_links(&self, path: &Path, access: Access) -> io::Result<OwnedFd> {
        openat::open_below(self.0.as_fd(), or_here(path), access, Walk::InRootNoLinks)
    }

    /// Opens a mount point, and makes what is missing of it: directories 0755, a file 0644. The root itself is refused.
    pub fn mount_point(&self, path: &Path, want: Want) -> Result<OwnedFd> {
        let point = self.ensure(path, want)?;
        let what = || format!("look at {}", path.display());
        let (found, root) = (openat::facts(point.as_fd()).explain(what)?, openat::facts(self.0.as_fd()).explain(what)?);
        if (found.device, found.inode) == (root.device, root.inode) {
            return Err(Failure::refused(format!(
                "{} is the container's root, where nothing can be mounted",
                path.display()
            )));
        }
        Ok(point)
    }

    /// Opens a path, and makes what is missing of it.
    pub fn ensure(&self, path: &Path, want: Want) -> Result<OwnedFd> {
        let found = match self.open(path, Access::Path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.create(path.to_owned(), want)?,
            other => other.explain(|| format!("open {} in the container", path.display()))?,
        };
        let kind = openat::facts(found.as_fd()).explain(|| format!("look at {}", path.display()))?.kind;
        match (want, kind == Kind::Directory) {
            (Want::Directory, false) => Err(Failure {
                errno: 20, // ENOTDIR
                detail: format!("{} in the container is not a directory, but what is mounted there is", path.display()),
                exit: 1,
            }),
            (Want::File, true) => Err(Failure {
                errno: 21, // EISDIR
                detail: format!("{} in the container is a directory, but what is mounted there is not", path.display()),
                exit: 1,
            }),
            _ => Ok(found),
        }
    }

    fn create(&self, mut path: PathBuf, want: Want) -> Result<OwnedFd> {
        for _ in 0..MAX_LINKS {
            match self.create_once(&path, want)? {
                None => {
                    return self.open(&path, Access::Path).explain(|| format!("open {} just made", path.display()));
                }
                // A link that led nowhere: what it names is made instead, still below the root.
                Some(through) => path = through,
            }
        }
        Err(Failure { errno: 40, detail: format!("{}: too many symbolic links", path.display()), exit: 1 })
    }

    /// Makes the missing components; or tells where the path continues behind a dangling link.
    fn create_once(&self, path: &Path, want: Want) -> Result<Option<PathBuf>> {
        let what = |at: &Path| format!("make {} in the container", at.display());
        let names: Vec<Component<'_>> =
            path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect();
        let mut done = PathBuf::from("/");
        for (at, name) in names.iter().enumerate() {
            let next = done.join(name);
            match self.open(&next, Access::Path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => {
                    other.explain(|| what(&next))?;
                    done = next;
                    continue;
                }
            }
            let parent = self.open(&done, Access::Path).explain(|| what(&done))?;
            let name = Path::new(name);
            let made = if at + 1 == names.len() && want == Want::File {
                openat::make_file(parent.as_fd(), name, 0o644).map(drop)
            } else {
                openat::make_dir(parent.as_fd(), name, 0o755)
            };
            match made {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let link = openat::read_link(parent.as_fd(), name).explain(|| what(&next))?;
                    let mut through = done.join(link);
                    through.extend(&names[at + 1..]);
                    return Ok(Some(through));
                }
                other => other.explain(|| what(&next))?,
            }
            done = next;
        }
        Ok(None)
    }
}

/// The kernel has no empty paths; here they mean the root.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> (PathBuf, Root) {
        let dir = std::env::temp_dir().join(format!("berth-init-root-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("root")).unwrap();
        let root = Root::new(openat::open_host(&dir.join("root"), Access::Path).unwrap());
        (dir, root)
    }

    #[test]
    fn what_is_missing_is_made_below_the_root() {
        let (dir, root) = scratch("make");
        root.mount_point(Path::new("/a/b/c"), Want::Directory).unwrap();
        root.mount_point(Path::new("/a/f"), Want::File).unwrap();
        assert!(dir.join("root/a/b/c").is_dir() && dir.join("root/a/f").is_file());
        assert_eq!(root.mount_point(Path::new("/a/f"), Want::Directory).unwrap_err().errno, 20);
        assert_eq!(root.mount_point(Path::new("/a/b"), Want::File).unwrap_err().errno, 21);
        for it in ["/", "/.", "/a/.."] {
            assert!(root.mount_point(Path::new(it), Want::Directory).unwrap_err().detail.contains("root"));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn links_of_the_image_never_lead_out() {
        let (dir, root) = scratch("links");
        std::fs::create_dir(dir.join("host")).unwrap();
        let inside = dir.join("root");
        symlink(&dir, inside.join("abs")).unwrap();
        symlink("../../../../../..", inside.join("up")).unwrap();
        symlink("/run", inside.join("var-run")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        root.mount_point(Path::new("/abs/host/x"), Want::Directory).unwrap();
        root.mount_point(Path::new("/up/y"), Want::Directory).unwrap();
        root.mount_point(Path::new("/var-run/secrets"), Want::Directory).unwrap();
        assert!(inside.join("y").is_dir() && inside.join("run/secrets").is_dir());
        assert!(std::fs::read_dir(dir.join("host")).unwrap().next().is_none());
        assert!(inside.join(dir.strip_prefix("/").unwrap()).join("host/x").is_dir());
        assert_eq!(root.mount_point(Path::new("/loop/z"), Want::Directory).unwrap_err().errno, 40);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
