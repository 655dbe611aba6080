//! Mounts through file descriptors: `fsopen`, `open_tree`, `move_mount`, `mount_setattr`.
//!
//! Owns: the calls and their flag words (`linux/mount.h`). Must not: resolve a path that a container can change; callers
//! bring descriptors, or paths of the host.
use rustix::mount as rx;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `MOUNT_ATTR_*` (`linux/mount.h`).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes do not open.
    pub const NODEV: u64 = 0x4;
    /// Programs do not execute.
    pub const NOEXEC: u64 = 0x8;
    /// Access times are always written.
    pub const STRICTATIME: u64 = 0x20;
    /// Ids are shifted by a user namespace.
    pub(super) const IDMAP: u64 = 0x10_0000;

    /// What a file system without programs and devices gets.
    pub const QUIET: u64 = NOSUID | NODEV | NOEXEC;

    /// [`RDONLY`] if `condition`, else nothing.
    pub const fn read_only_if(condition: bool) -> u64 {
        if condition { RDONLY } else { 0 }
    }
}

/// How a mount shares events with its copies (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// `MS_PRIVATE`.
    Private,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_SHARED`.
    Shared,
}

impl Sharing {
    fn bits(self) -> u64 {
        match self {
            Self::Private => u64::from(rx::MountPropagationFlags::PRIVATE.bits()),
            Self::Slave => u64::from(rx::MountPropagationFlags::DOWNSTREAM.bits()),
            Self::Shared => u64::from(rx::MountPropagationFlags::SHARED.bits()),
        }
    }
}

/// A mount that failed: the errno and what the file system wrote into its log (the words dmesg would have).
#[derive(Debug)]
pub struct MountError {
    /// The errno.
    pub error: io::Error,
    /// The file system's words; may be empty.
    pub log: String,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.log.is_empty() { self.error.fmt(f) } else { write!(f, "{} ({})", self.error, self.log) }
    }
}

impl std::error::Error for MountError {}

/// A file system that is being configured (`fsopen(2)`).
#[derive(Debug)]
pub struct NewMount(OwnedFd);

impl NewMount {
    /// Opens a context for a file system type.
    pub fn open(file_system: &str) -> io::Result<Self> {
        Ok(Self(rx::fsopen(file_system, rx::FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// Sets a string option. The kernel takes at most 255 bytes of value.
    pub fn set(&self, key: &str, value: &str) -> Result<(), MountError> {
        self.told(rx::fsconfig_set_string(self.0.as_fd(), key, value))
    }

    /// Sets a path as a string option; as [`NewMount::set`].
    pub fn set_path(&self, key: &str, value: &Path) -> Result<(), MountError> {
        self.told(rx::fsconfig_set_string(self.0.as_fd(), key, value))
    }

    /// Gives a descriptor as an option's value.
    pub fn set_fd(&self, key: &str, value: BorrowedFd<'_>) -> Result<(), MountError> {
        self.told(rx::fsconfig_set_fd(self.0.as_fd(), key, value))
    }

    /// Sets an option that has no value.
    pub fn set_flag(&self, key: &str) -> Result<(), MountError> {
        self.told(rx::fsconfig_set_flag(self.0.as_fd(), key))
    }

    /// Makes the superblock and a mount of it that is attached nowhere. `attributes` are of [`attr`].
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd, MountError> {
        self.told(rx::fsconfig_create(self.0.as_fd()))?;
        let bits = rx::MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(u32::MAX));
        self.told(rx::fsmount(self.0.as_fd(), rx::FsMountFlags::FSMOUNT_CLOEXEC, bits))
    }

    fn told<T>(&self, result: rustix::io::Result<T>) -> Result<T, MountError> {
        result.map_err(|errno| MountError { error: errno.into(), log: self.log() })
    }

    /// Messages wait in the context, one per read (`fs/fsopen.c`, fscontext_read); bounded here.
    fn log(&self) -> String {
        let mut text = String::new();
        let mut line = [0u8; 512];
        for _ in 0..8 {
            match rustix::io::read(self.0.as_fd(), &mut line) {
                Ok(n) if n > 0 => {
                    if !text.is_empty() {
                        text.push_str("; ");
                    }
                    text.push_str(String::from_utf8_lossy(&line[..n]).trim_end());
                }
                _ => break,
            }
        }
        text
    }
}

/// A detached copy of the mount at a host path, with the mounts below it if `recursive`. Symbolic links are followed.
pub fn clone_path(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    Ok(rx::open_tree(rustix::fs::CWD, path, clone_flags(recursive))?)
}

/// A detached copy of what `path` leads to below `dir`. Symbolic links are followed: for directories of ours.
pub fn clone_below(dir: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    Ok(rx::open_tree(dir, path, clone_flags(false))?)
}

/// A detached copy of the mount that a descriptor is on, rooted at the descriptor.
pub fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    Ok(rx::open_tree(fd, c"", clone_flags(recursive) | rx::OpenTreeFlags::AT_EMPTY_PATH)?)
}

fn clone_flags(recursive: bool) -> rx::OpenTreeFlags {
    let flags = rx::OpenTreeFlags::OPEN_TREE_CLONE | rx::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | rx::OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches a detached mount on top of what `target` refers to. No path is looked at, so none can be swapped.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rx::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | rx::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rx::move_mount(tree, c"", target, c"", flags)?)
}

/// Changes to a mount (`mount_setattr(2)`, 5.12).
#[derive(Debug, Default)]
pub struct Change<'a> {
    /// [`attr`] words to set.
    pub set: u64,
    /// New sharing.
    pub sharing: Option<Sharing>,
    /// User namespace to shift ids by; the mount must be detached and not shifted yet.
    pub idmap: Option<BorrowedFd<'a>>,
}

// struct mount_attr of linux/mount.h, first version, 32 bytes.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Applies a change to the mount that `tree` is the root of, and to all below it if `recursive`.
pub fn change(tree: BorrowedFd<'_>, recursive: bool, what: &Change<'_>) -> io::Result<()> {
    let mut words =
        MountAttr { set: what.set, clear: 0, propagation: what.sharing.map_or(0, Sharing::bits), userns_fd: 0 };
    if let Some(userns) = what.idmap {
        words.set |= attr::IDMAP;
        // A descriptor that is open is not negative.
        words.userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or_default();
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal, `words` lives through the call, and its true size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut words,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the sharing of everything below the process's root.
pub fn change_root_sharing(sharing: Sharing) -> io::Result<()> {
    let flags = match sharing {
        Sharing::Private => rx::MountPropagationFlags::PRIVATE,
        Sharing::Slave => rx::MountPropagationFlags::DOWNSTREAM,
        Sharing::Shared => rx::MountPropagationFlags::SHARED,
    };
    Ok(rx::mount_change(c"/", flags | rx::MountPropagationFlags::REC)?)
}

/// Makes the directory the process stands in its root, and puts the old root on top of it, where [`detach_cwd`] removes it.
pub fn pivot_here() -> io::Result<()> {
    Ok(rustix::process::pivot_root(c".", c".")?)
}

/// Detaches the mount the process stands on, with all below it (`MNT_DETACH`).
pub fn detach_cwd() -> io::Result<()> {
    Ok(rx::unmount(c".", rx::UnmountFlags::DETACH)?)
}

/// Detaches the mount at a host path. Symbolic links are not followed.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(rx::unmount(path, rx::UnmountFlags::DETACH | rx::UnmountFlags::NOFOLLOW)?)
}

/// The old call, `mount(2)`, for kernels that cannot give a file system its options by descriptor. `options` is bounded by
/// the kernel to a page.
pub fn mount_by_options(file_system: &str, target: &Path, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(rx::mount(file_system, target, file_system, rx::MountFlags::empty(), Some(options.as_c_str()))?)
}
