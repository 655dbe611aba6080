//! What is on the /dev that we make: standard nodes, links, the container's own terminals, and the spec's devices.
//!
//! Owns: the contents of one tmpfs, reached by its descriptor only. Must not: be used on a /dev that is not ours.
use crate::failure::{Explain, Failure, Result};
use crate::root::{Root, Want};
use crate::sources::STANDARD_NODES;
use berth_monitor_api::spec::DeviceNode;
use berth_sys::mount::{self, NewMount, attr};
use berth_sys::openat::{self, Access, Device, Kind};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

/// Links: name, target.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills a fresh tmpfs. `copies` are detached copies of the host's nodes where none can be made.
/// `label` is the SELinux label of terminals.
pub fn fill(
    dev: &OwnedFd,
    devices: &[DeviceNode],
    label: Option<&str>,
    copies: Option<(Vec<OwnedFd>, Vec<OwnedFd>)>,
) -> Result<()> {
    let root = Root::new(dev.try_clone().explain(|| "copy a descriptor")?);
    let (standard, own) = copies.map_or((None, None), |(standard, own)| (Some(standard), Some(own)));
    for (at, (name, major, minor)) in STANDARD_NODES.iter().enumerate() {
        let node = Device { block: false, major: *major, minor: *minor, mode: 0o666, uid: 0, gid: 0 };
        let copy = standard.as_ref().and_then(|copies| copies.get(at));
        place(&root, Path::new(name), &node, copy)?;
    }
    for (name, target) in LINKS {
        openat::make_link(Path::new(target), dev.as_fd(), Path::new(name)).explain(|| format!("link /dev/{name}"))?;
    }
    openat::make_dir(dev.as_fd(), Path::new("pts"), 0o755).explain(|| "make /dev/pts")?;
    let pts = root.open(Path::new("pts"), Access::Path).explain(|| "open /dev/pts")?;
    mount::attach(terminals(label)?.as_fd(), pts.as_fd()).explain(|| "attach devpts")?;
    for (at, device) in devices.iter().enumerate() {
        extra(&root, device, own.as_ref().and_then(|copies| copies.get(at)))?;
    }
    Ok(())
}

/// A devpts of its own. Group 5 is tty's (Debian, Alpine and others agree); a user namespace may not map it.
fn terminals(label: Option<&str>) -> Result<OwnedFd> {
    let make = |with_group: bool| {
        let context = NewMount::open("devpts").map_err(|error| mount::MountError { error, log: String::new() })?;
        context.set("source", "devpts")?;
        context.set_flag("newinstance")?;
        context.set("ptmxmode", "0666")?;
        context.set("mode", "0620")?;
        if let Some(label) = label {
            context.set("context", label)?;
        }
        if with_group {
            context.set("gid", "5")?;
        }
        context.mount(attr::NOSUID | attr::NOEXEC)
    };
    make(true).or_else(|_| make(false)).explain(|| "a fresh devpts")
}

/// One of the spec's devices. A name that is taken by the same device is fine: privileged containers get all of the host's.
fn extra(root: &Root, device: &DeviceNode, copy: Option<&OwnedFd>) -> Result<()> {
    let what = || format!("device {}", device.path.display());
    let below = device
        .path
        .strip_prefix("/dev")
        .ok()
        .filter(|p| p.components().next().is_some() && p.components().all(|c| matches!(c, Component::Normal(_))));
    let Some(below) = below else {
        return Err(Failure::refused(format!("device {} is not below /dev", device.path.display())));
    };
    let node = Device {
        block: device.block,
        major: device.major,
        minor: device.minor,
        mode: device.mode,
        uid: device.uid,
        gid: device.gid,
    };
    let found = match root.open_without_links(below, Access::Path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return place(root, below, &node, copy),
        // Our links and terminals stand for the host's ptmx, pts, fd and std*.
        Err(_) if LINKS.iter().any(|(name, _)| below == Path::new(name)) => return Ok(()),
        other => openat::facts(other.explain(what)?.as_fd()).explain(what)?,
    };
    let kind = if device.block { Kind::BlockDevice } else { Kind::CharacterDevice };
    if found.kind == kind && found.node == (device.major, device.minor) {
        return Ok(());
    }
    Err(Failure::refused(format!("device {}: another file has that name", device.path.display())))
}

/// Makes a node, or attaches a copy of the host's to an empty file.
fn place(root: &Root, below: &Path, node: &Device, copy: Option<&OwnedFd>) -> Result<()> {
    let what = || format!("device /dev/{}", below.display());
    if let Some(copy) = copy {
        let file = root.mount_point(below, Want::File)?;
        return mount::attach(copy.as_fd(), file.as_fd()).explain(what);
    }
    let Some(name) = below.file_name() else {
        return Err(Failure::refused(what()));
    };
    let parent = root.ensure(below.parent().unwrap_or(Path::new("")), Want::Directory)?;
    openat::make_device(parent.as_fd(), Path::new(name), node).explain(what)
}
