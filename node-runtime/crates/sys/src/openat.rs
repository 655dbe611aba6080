//! Files below a directory descriptor, with the kernel keeping the walk inside it (`openat2(2)`, 5.6).
//!
//! Owns: the calls. Must not: open anything by a path that starts at the process's root, except [`open_host`].
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Magic numbers of file systems (`linux/magic.h`).
pub mod magic {
    /// procfs.
    pub const PROC: i64 = 0x9fa0;
    /// sysfs.
    pub const SYSFS: i64 = 0x6265_6572;
    /// devpts.
    pub const DEVPTS: i64 = 0x1cd1;
    /// A cgroup v1 hierarchy.
    pub const CGROUP: i64 = 0x27_e0eb;
    /// The cgroup v2 tree.
    pub const CGROUP2: i64 = 0x6367_7270;
}

/// How a walk may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// The directory is the root of the walk: absolute links and `..` stay inside (`RESOLVE_IN_ROOT`). For container roots.
    InRoot,
    /// As [`Walk::InRoot`], and symbolic links are refused.
    InRootNoLinks,
    /// Nothing may lead out, and no other mount may be crossed. For file systems of the kernel, opened by us.
    SameMount,
}

impl Walk {
    fn flags(self) -> ResolveFlags {
        match self {
            Self::InRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Self::InRootNoLinks => ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
            Self::SameMount => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        }
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To refer to it only (`O_PATH`).
    Path,
    /// To read. Never blocks on a FIFO and never takes a terminal.
    Read,
    /// To write what exists.
    Write,
    /// To read and write. Never takes a terminal.
    ReadWrite,
}

impl Access {
    fn flags(self) -> OFlags {
        OFlags::CLOEXEC
            | match self {
                Self::Path => OFlags::PATH,
                Self::Read => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
                Self::Write => OFlags::WRONLY | OFlags::NOCTTY,
                Self::ReadWrite => OFlags::RDWR | OFlags::NOCTTY,
            }
    }
}

/// Opens what `path` leads to below `dir`. The kernel answers EAGAIN when a rename runs against the walk: tried again a few
/// times.
pub fn open_below(dir: BorrowedFd<'_>, path: &Path, access: Access, walk: Walk) -> io::Result<OwnedFd> {
    let mut left = 16;
    loop {
        match rustix::fs::openat2(dir, path, access.flags(), Mode::empty(), walk.flags()) {
            Err(rustix::io::Errno::AGAIN) if left > 0 => left -= 1,
            other => return Ok(other?),
        }
    }
}

/// Opens a path of the host, chosen by the host. Symbolic links are followed.
pub fn open_host(path: &Path, access: Access) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, access.flags(), Mode::empty())?)
}

/// Makes a directory directly in `dir`; `name` is one component.
pub fn make_dir(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))?)
}

/// Makes an empty file directly in `dir`, which must not exist.
pub fn make_file(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))?)
}

/// Makes a symbolic link directly in `dir`.
pub fn make_link(target: &Path, dir: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// Makes a device node directly in `dir`, with exactly these permission bits and owners.
pub fn make_device(dir: BorrowedFd<'_>, name: &Path, device: &Device) -> io::Result<()> {
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    rustix::fs::mknodat(dir, name, kind, mode, rustix::fs::makedev(device.major, device.minor))?;
    rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(device.uid), rustix::fs::Gid::from_raw(device.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A device node to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Block device, else character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Where a symbolic link directly in `dir` leads.
pub fn read_link(dir: BorrowedFd<'_>, name: &Path) -> io::Result<OsString> {
    Ok(OsString::from_vec(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()))
}

/// Removes a file (not a directory) directly in `dir`.
pub fn remove_file(dir: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// What init asks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Device that holds it.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Number of the device that it is, or 0.
    pub node: (u32, u32),
    /// Owner.
    pub uid: u32,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Character device.
    CharacterDevice,
    /// Block device.
    BlockDevice,
    /// FIFO.
    Fifo,
    /// Anything else.
    Other,
}

/// `fstat(2)`.
pub fn facts(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let stat = rustix::fs::fstat(fd)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => Kind::Other,
    };
    Ok(Facts {
        device: stat.st_dev,
        inode: stat.st_ino,
        kind,
        mode: stat.st_mode & 0o7777,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        node: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        uid: stat.st_uid,
    })
}

/// The [`magic`] number of the file system that holds an open file.
pub fn file_system(fd: BorrowedFd<'_>) -> io::Result<i64> {
    #[allow(clippy::useless_conversion, reason = "the field's width differs between targets")]
    Ok(i64::from(rustix::fs::fstatfs(fd)?.f_type))
}

/// Id of the mount that an open file is on, as in /proc/self/mountinfo (`statx(2)`, 5.8).
pub fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let flags = rustix::fs::StatxFlags::MNT_ID;
    let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, flags)?;
    if found.stx_mask & flags.bits() == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(found.stx_mnt_id)
}

/// Changes owner, group, or both of an open file.
pub fn change_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw))?)
}

/// Changes owner and group of a file that is open for [`Access::Path`].
pub fn change_owner_of_path(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// Gives an open file a SELinux label.
pub fn set_label(fd: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, c"security.selinux", label.as_bytes(), rustix::fs::XattrFlags::empty())?)
}

/// Changes the permission bits of an open file.
pub fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}

/// Whether the process, by its effective ids and capabilities, may execute a file open for [`Access::Path`].
///
/// `faccessat2` with `AT_EACCESS` (5.8).
pub fn may_execute(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a NUL-terminated literal; the rest are integers. rustix refuses AT_EMPTY_PATH here.
    let result = unsafe { libc::syscall(libc::SYS_faccessat2, fd.as_raw_fd(), c"".as_ptr(), libc::X_OK, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
