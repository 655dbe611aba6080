//! Overlays of an image's layers: the root filesystem, and volumes that are images. Made by the host's root and attached by the
//! container.
//!
//! Owns: options and id shifts of the overlays. Must not: mount anything where the host sees it.
use crate::failure::{Explain, Failure, Result};
use berth_model::MountOptions;
use berth_monitor_api::spec::{ImageTree, Rootfs};
use berth_sys::mount::{self, Change, NewMount, Sharing, attr};
use berth_sys::namespace::{self, Kinds};
use berth_sys::openat::{self, Access, Walk};
use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const EINVAL: i32 = 22;

/// The directories of one overlay.
struct Stack<'a> {
    /// Layers, topmost first.
    lower: &'a [PathBuf],
    /// The layers are shifted by the pod's user namespace.
    idmapped: bool,
    /// The writable layer and its work directory.
    writable: Option<(&'a Path, &'a Path)>,
    /// An empty directory to assemble on.
    at: &'a Path,
    /// Words of [`attr`].
    attributes: u64,
    /// SELinux label of all files.
    label: Option<&'a str>,
}

/// A detached mount of the root filesystem.
pub fn assemble(spec: &Rootfs, label: Option<&str>, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    if let Some((uid, gid)) = spec.owner {
        let what = || format!("give {} to {uid}:{gid}", spec.upper.display());
        openat::change_owner_of_path(open(&spec.upper)?.as_fd(), uid, gid).explain(what)?;
    }
    let stack = Stack {
        lower: &spec.lower,
        idmapped: spec.idmapped,
        writable: Some((&spec.upper, &spec.work)),
        at: &spec.mountpoint,
        attributes: 0,
        label,
    };
    stack.mount(userns)
}

/// A detached, read-only mount of an image, or of a part of it. `at` is an empty directory. For a part, and on a kernel that has to
/// assemble on `at`, this process is in a mount namespace of its own afterwards.
pub fn image(tree: &ImageTree, at: &Path, label: Option<&str>, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    // Devices of an image are nobody's business here: the container has its own /dev.
    let attributes = attr::RDONLY | attr::NODEV | attributes(tree.options);
    let stack = Stack { lower: &tree.lower, idmapped: tree.idmapped, writable: None, at, attributes, label };
    let whole = stack.mount(userns)?;
    if tree.sub_path.as_os_str().is_empty() { Ok(whole) } else { part(whole, &tree.sub_path, at) }
}

/// The attributes that options stand for.
pub fn attributes(options: MountOptions) -> u64 {
    let MountOptions { noexec, nodev, nosuid } = options;
    [(noexec, attr::NOEXEC), (nodev, attr::NODEV), (nosuid, attr::NOSUID)]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(0, |all, (_, attribute)| all | attribute)
}

/// A detached copy of what a path leads to below a detached mount. Before 6.15 only attached mounts can be copied (fs/namespace.c,
/// `may_copy_tree`), so it is attached, where nobody else sees it.
fn part(whole: OwnedFd, path: &Path, at: &Path) -> Result<OwnedFd> {
    let what = || format!("open {} in the image", path.display());
    let inside = openat::open_below(whole.as_fd(), path, Access::Path, Walk::InRoot).explain(what)?;
    own_namespace(at)?;
    mount::attach(whole.as_fd(), open(at)?.as_fd()).explain(what)?;
    mount::clone_fd(inside.as_fd(), false).explain(what)
}

fn open(path: &Path) -> Result<OwnedFd> {
    openat::open_host(path, Access::Path).explain(|| format!("open {}", path.display()))
}

fn own_namespace(at: &Path) -> Result<()> {
    let what = || format!("prepare {}", at.display());
    namespace::unshare(Kinds::MOUNT).explain(what)?;
    mount::change_root_sharing(Sharing::Private).explain(what)
}

/// A layer's directory. An id-mapped one is a detached copy: what the image stores as 0 is then the pod's root.
fn layer(path: &Path, idmapped: bool, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let what = || format!("layer {}", path.display());
    if !idmapped {
        return openat::open_host(path, Access::Path).explain(what);
    }
    if userns.is_none() {
        return Err(Failure::refused("id-mapped layers need the pod's user namespace"));
    }
    let tree = mount::clone_path(path, false).explain(what)?;
    let change = Change { set: attr::RDONLY, sharing: Some(Sharing::Private), idmap: userns };
    mount::change(tree.as_fd(), false, &change).explain(what)?;
    Ok(tree)
}

impl Stack<'_> {
    fn mount(&self, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
        if self.lower.is_empty() {
            return Err(Failure::refused("an overlay has no layer"));
        }
        let lower = self.lower.iter().map(|path| layer(path, self.idmapped, userns)).collect::<Result<Vec<_>>>()?;
        match self.by_descriptors(&lower) {
            // A kernel that has no `lowerdir+`, or none that takes a descriptor (both are newer than 6.5).
            Err(e) if e.errno == EINVAL => self.by_paths(&lower),
            other => other,
        }
    }

    fn by_descriptors(&self, lower: &[OwnedFd]) -> Result<OwnedFd> {
        let what = || "configure the overlay";
        let overlay = NewMount::open("overlay").explain(what)?;
        overlay.set("source", "overlay").explain(what)?;
        for fd in lower {
            overlay.set_fd("lowerdir+", fd.as_fd()).explain(what)?;
        }
        if let Some((upper, work)) = self.writable {
            overlay.set_fd("upperdir", open(upper)?.as_fd()).explain(what)?;
            overlay.set_fd("workdir", open(work)?.as_fd()).explain(what)?;
        }
        if let Some(label) = self.label {
            overlay.set("context", label).explain(|| format!("label the overlay {label}"))?;
        }
        overlay.mount(self.attributes).explain(|| "mount the overlay")
    }

    /// The way of kernels before 6.13: option strings, which name attached directories of the caller's mount namespace only.
    /// So this process takes a mount namespace of its own, where a tmpfs on the given mount point holds the shifted layers and
    /// the overlay until the copy is taken.
    fn by_paths(&self, shifted: &[OwnedFd]) -> Result<OwnedFd> {
        let at = self.at;
        let what = || format!("prepare {}", at.display());
        own_namespace(at)?;
        let scratch = NewMount::open("tmpfs").explain(what)?.mount(attr::NODEV).explain(what)?;
        mount::attach(scratch.as_fd(), open(at)?.as_fd()).explain(what)?;
        // Opened anew: what was opened before is in the other namespace.
        let mut keep = Vec::new();
        let mut options = String::from("lowerdir=");
        for (n, path) in self.lower.iter().enumerate() {
            let mut layer = path.clone();
            if let (true, Some(tree)) = (self.idmapped, shifted.get(n)) {
                let name = n.to_string();
                openat::make_dir(scratch.as_fd(), Path::new(&name), 0o700).explain(what)?;
                layer = at.join(name);
                mount::attach(tree.as_fd(), open(&layer)?.as_fd()).explain(what)?;
            }
            let fd = open(&layer)?;
            let separator = if n == 0 { "" } else { ":" };
            // Through the descriptor, so that neither length nor colons of the real path matter.
            let _ = write!(options, "{separator}/proc/self/fd/{}", fd.as_raw_fd());
            keep.push(fd);
        }
        for (option, path) in self.writable.iter().flat_map(|(upper, work)| [("upperdir", upper), ("workdir", work)]) {
            let fd = open(path)?;
            let _ = write!(options, ",{option}=/proc/self/fd/{}", fd.as_raw_fd());
            keep.push(fd);
        }
        if let Some(label) = self.label {
            // Categories have commas, which separate options.
            let _ = write!(options, ",context=\"{label}\"");
        }
        openat::make_dir(scratch.as_fd(), Path::new("root"), 0o755).explain(what)?;
        let root = at.join("root");
        mount::mount_by_options("overlay", &root, &options).explain(|| format!("overlay on {}", root.display()))?;
        let copied = mount::clone_path(&root, false).explain(what)?;
        self.set_attributes(copied)
    }

    fn set_attributes(&self, tree: OwnedFd) -> Result<OwnedFd> {
        if self.attributes != 0 {
            let change = Change { set: self.attributes, ..Change::default() };
            mount::change(tree.as_fd(), false, &change).explain(|| "set attributes of the overlay")?;
        }
        Ok(tree)
    }
}
