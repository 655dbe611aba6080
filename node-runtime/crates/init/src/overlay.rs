//! The root filesystem: an overlay of the image's layers, made by the host's root and attached by the container.
//!
//! Owns: options and id shifts of the overlay. Must not: mount anything where the host sees it.
use crate::failure::{Explain, Failure, Result};
use berth_monitor_api::spec::Rootfs;
use berth_sys::mount::{self, Change, NewMount, Sharing, attr};
use berth_sys::namespace::{self, Kinds};
use berth_sys::openat::{self, Access};
use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A detached mount of the overlay.
pub fn assemble(spec: &Rootfs, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    if spec.lower.is_empty() {
        return Err(Failure::refused("the root filesystem has no layer"));
    }
    let open = |path: &Path| openat::open_host(path, Access::Path).explain(|| format!("open {}", path.display()));
    let lower = spec.lower.iter().map(|path| layer(path, spec.idmapped, userns)).collect::<Result<Vec<_>>>()?;
    let (upper, work) = (open(&spec.upper)?, open(&spec.work)?);
    if let Some((uid, gid)) = spec.owner {
        openat::change_owner_of_path(upper.as_fd(), uid, gid)
            .explain(|| format!("give {} to {uid}:{gid}", spec.upper.display()))?;
    }
    match by_descriptors(&lower, &upper, &work) {
        Ok(root) => Ok(root),
        // A kernel that has no `lowerdir+`, or none that takes a descriptor (both are newer than 6.5).
        Err(e) if e.errno == 22 => by_paths(spec, &lower).explain(|| "mount the overlay by paths"),
        Err(e) => Err(e),
    }
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

fn by_descriptors(lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd> {
    let what = || "configure the overlay";
    let overlay = NewMount::open("overlay").explain(what)?;
    overlay.set("source", "overlay").explain(what)?;
    for fd in lower {
        overlay.set_fd("lowerdir+", fd.as_fd()).explain(what)?;
    }
    overlay.set_fd("upperdir", upper.as_fd()).explain(what)?;
    overlay.set_fd("workdir", work.as_fd()).explain(what)?;
    overlay.mount(0).explain(|| "mount the overlay")
}

/// The way of kernels before 6.13: option strings, which name attached directories of the caller's mount namespace only. So
/// this process takes a mount namespace of its own, where a tmpfs on the given mount point holds the shifted layers and the
/// overlay until the copy is taken.
fn by_paths(spec: &Rootfs, shifted: &[OwnedFd]) -> Result<OwnedFd> {
    let at = spec.mountpoint.as_path();
    let what = || format!("prepare {}", at.display());
    let open = |path: &Path| openat::open_host(path, Access::Path).explain(|| format!("open {}", path.display()));
    namespace::unshare(Kinds::MOUNT).explain(what)?;
    mount::change_root_sharing(Sharing::Private).explain(what)?;
    let scratch = NewMount::open("tmpfs").explain(what)?.mount(attr::NODEV).explain(what)?;
    mount::attach(scratch.as_fd(), open(at)?.as_fd()).explain(what)?;
    // Opened anew: what was opened before is in the other namespace.
    let mut keep = Vec::new();
    let mut options = String::from("lowerdir=");
    for (n, path) in spec.lower.iter().enumerate() {
        let mut layer = path.clone();
        if let (true, Some(tree)) = (spec.idmapped, shifted.get(n)) {
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
    let (upper, work) = (open(&spec.upper)?, open(&spec.work)?);
    let (upper_fd, work_fd) = (upper.as_raw_fd(), work.as_raw_fd());
    let _ = write!(options, ",upperdir=/proc/self/fd/{upper_fd},workdir=/proc/self/fd/{work_fd}");
    openat::make_dir(scratch.as_fd(), Path::new("root"), 0o755).explain(what)?;
    let root = at.join("root");
    mount::mount_by_options("overlay", &root, &options).explain(|| format!("overlay on {}", root.display()))?;
    mount::clone_path(&root, false).explain(what)
}
