//! The mounts of a container, made below its root in the order of the spec.
//!
//! Owns: kinds of mounts and where they may go. Must not: open anything by a path of the host.
use crate::dev;
use crate::failure::{Explain, Failure, Result};
use crate::root::{Root, Want};
use crate::sources::{Source, Sources};
use berth_model::MOUNTABLE_IN_PROC;
use berth_monitor_api::spec::{ContainerSpec, MountKind, MountSpec};
use berth_sys::mount::{self, NewMount, attr};
use berth_sys::openat::{self, Access, Walk, magic};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Not the owner's, and nobody's who may act for it.
const EPERM: i32 = 1;

/// Makes all mounts. Returns the /dev tmpfs, if there is one.
pub fn make_all(root: &Root, spec: &ContainerSpec, sources: &mut Sources) -> Result<Option<OwnedFd>> {
    let mut dev = None;
    let taken: Vec<Source> = std::mem::take(&mut sources.mounts);
    for (mount, source) in spec.mounts.iter().zip(taken) {
        let made = make(root, spec, mount, source, sources);
        if let Some(fd) = made.explain(|| format!("mount {}", mount.target.display()))? {
            dev = Some(fd);
        }
    }
    if dev.is_none() && !spec.devices.is_empty() {
        return Err(Failure::refused("devices were asked for, but /dev is not made by us"));
    }
    Ok(dev)
}

fn make(
    root: &Root,
    spec: &ContainerSpec,
    mount: &MountSpec,
    source: Source,
    sources: &mut Sources,
) -> Result<Option<OwnedFd>> {
    let target = mount.target.as_path();
    match (&mount.kind, source) {
        (MountKind::Bind(_) | MountKind::Image(_), Source::Tree(tree, is_directory)) => {
            let want = if is_directory { Want::Directory } else { Want::File };
            attach(root, target, &tree, want)?;
        }
        (MountKind::Sysfs { .. }, Source::Tree(tree, _)) => attach_real(root, target, &tree)?,
        (MountKind::Sysfs { readonly }, _) => {
            attach_real(root, target, &fresh("sysfs", attr::QUIET | attr::read_only_if(*readonly))?)?;
        }
        (MountKind::Proc, _) => attach_real(root, target, &fresh("proc", attr::QUIET)?)?,
        (MountKind::Mqueue, _) => attach(root, target, &message_queues(spec.mount_label.as_deref())?, Want::Directory)?,
        (MountKind::Tmpfs { size, mode, noexec }, _) => {
            let noexec = if *noexec { attr::NOEXEC } else { 0 };
            let tree = labelled_tmpfs(*size, *mode, attr::NOSUID | attr::NODEV | noexec, spec.mount_label.as_deref())?;
            attach(root, target, &tree, Want::Directory)?;
        }
        (MountKind::Dev, _) => {
            let label = spec.mount_label.as_deref();
            let tree = labelled_tmpfs(64 * 1024 * 1024, 0o755, attr::NOSUID | attr::STRICTATIME, label)?;
            attach(root, target, &tree, Want::Directory)?;
            dev::fill(&tree, &spec.devices, label, sources.nodes.take())?;
            return Ok(Some(tree));
        }
        (MountKind::Cgroup { readonly, v1_links, .. }, Source::Cgroup(v1, v2)) => {
            cgroups(root, target, *readonly, (v1, v1_links), v2)?;
        }
        (MountKind::Bind(_) | MountKind::Image(_) | MountKind::Cgroup { .. }, _) => {
            return Err(Failure::refused("its source was not prepared"));
        }
    }
    Ok(None)
}

fn fresh(file_system: &str, attributes: u64) -> Result<OwnedFd> {
    let what = || format!("a fresh {file_system}");
    let context = NewMount::open(file_system).explain(what)?;
    context.set("source", file_system).explain(what)?;
    context.mount(attributes).explain(what)
}

/// The message queues of the IPC namespace. The kernel has them mounted already, so that a mount option `context` would be
/// refused; the directory is labelled instead. In a user namespace it belongs to a user whom nobody there may act for (EPERM; what the
/// policy forbids is EACCES) and keeps the policy's own label, which gives a container no more.
fn message_queues(label: Option<&str>) -> Result<OwnedFd> {
    let tree = fresh("mqueue", attr::QUIET)?;
    if let Some(label) = label {
        let what = || format!("label the message queues {label}");
        let root = openat::open_below(tree.as_fd(), Path::new("."), Access::Read, Walk::SameMount).explain(what)?;
        match openat::set_label(root.as_fd(), label) {
            Err(e) if e.raw_os_error() == Some(EPERM) => {}
            labelled => labelled.explain(what)?,
        }
    }
    Ok(tree)
}

/// A fresh tmpfs.
pub fn tmpfs(size: u64, mode: u32, attributes: u64) -> Result<OwnedFd> {
    labelled_tmpfs(size, mode, attributes, None)
}

fn labelled_tmpfs(size: u64, mode: u32, attributes: u64, label: Option<&str>) -> Result<OwnedFd> {
    let what = || "a fresh tmpfs";
    let context = NewMount::open("tmpfs").explain(what)?;
    context.set("source", "tmpfs").explain(what)?;
    context.set("size", &size.to_string()).explain(what)?;
    context.set("mode", &format!("{mode:o}")).explain(what)?;
    if let Some(label) = label {
        context.set("context", label).explain(|| format!("label a tmpfs {label}"))?;
    }
    context.mount(attributes).explain(what)
}

/// Attaches at a path below the root, links of the image followed inside it.
fn attach(root: &Root, target: &Path, tree: &OwnedFd, want: Want) -> Result<()> {
    let in_proc = target.starts_with("/proc");
    if in_proc && !MOUNTABLE_IN_PROC.iter().any(|allowed| target == Path::new(allowed)) {
        return Err(Failure::refused("nothing but a procfs may be mounted on or below /proc"));
    }
    let point = root.mount_point(target, want)?;
    if !in_proc && openat::file_system(point.as_fd()).explain(|| "statfs")? == magic::PROC {
        return Err(Failure::refused("it leads into procfs"));
    }
    mount::attach(tree.as_fd(), point.as_fd()).explain(|| "attach")
}

/// Attaches procfs or sysfs, at a directory that no link leads to: programs of ours and of the kernel trust what they find
/// at /proc and /sys (CVE-2019-19921, CVE-2023-28642).
fn attach_real(root: &Root, target: &Path, tree: &OwnedFd) -> Result<()> {
    root.mount_point(target, Want::Directory)?;
    let point = root
        .open_without_links(target, Access::Path)
        .explain(|| "it must be a directory that is reached without symbolic links")?;
    mount::attach(tree.as_fd(), point.as_fd()).explain(|| "attach")
}

type V1<'a> = (Vec<(String, OwnedFd)>, &'a [(String, String)]);

fn cgroups(root: &Root, target: &Path, readonly: bool, v1: V1<'_>, v2: Option<OwnedFd>) -> Result<()> {
    let (v1, links) = v1;
    let read_only = attr::read_only_if(readonly);
    if v1.is_empty() {
        let tree = v2.map_or_else(|| fresh("cgroup2", attr::QUIET | read_only), Ok)?;
        return attach(root, target, &tree, Want::Directory);
    }
    let tree = tmpfs(1024 * 1024, 0o755, attr::QUIET)?;
    attach(root, target, &tree, Want::Directory)?;
    let base = Root::new(tree);
    let named = v1.into_iter().chain(v2.map(|fd| ("unified".to_owned(), fd)));
    for (name, dir) in named {
        attach(&base, Path::new(&name), &dir, Want::Directory).explain(|| name)?;
    }
    for (name, to) in links {
        openat::make_link(Path::new(to), base.as_fd(), Path::new(name)).explain(|| format!("link {name}"))?;
    }
    let change = mount::Change { set: read_only, ..mount::Change::default() };
    if readonly { mount::change(base.as_fd(), false, &change).explain(|| "make it read-only") } else { Ok(()) }
}
