//! Project quota: how much the files of one project take, and how much they may (quotactl(2), ioctl_xfs_fsgetxattr(2)).
//!
//! Owns: the calls, by a descriptor of the file system (`quotactl_fd`, 5.14), so that no device is looked for. Must not: choose project
//! numbers. Numbers and layouts: include/uapi/linux/quota.h, include/uapi/linux/fs.h.
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Block {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fs_quota_statv`, as far as it is looked at: the rest is room for the kernel to write into.
#[repr(C, align(8))]
struct QuotaState {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u8; 156],
}

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const GET_XATTR: u32 = 0x801c_581f;
const SET_XATTR: u32 = 0x401c_5820;
/// What is made in a directory belongs to its project.
const INHERIT: u32 = 0x200;
/// The same number on every architecture (scripts/syscall.tbl).
const QUOTACTL_FD: libc::c_long = 443;
const GET_QUOTA: libc::c_long = 0x80_0007;
const SET_QUOTA: libc::c_long = 0x80_0008;
/// `Q_XGETQSTATV` (include/uapi/linux/dqblk_xfs.h). File systems with the kernel's generic quota answer it too (fs/quota/quota.c).
const GET_STATE: libc::c_long = 0x5808;
const PROJECT: libc::c_long = 2;
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are kept to, not only counted against.
const PROJECT_ENFORCED: u16 = 1 << 5;
/// `FS_QSTATV_VERSION1`.
const STATE_VERSION: i8 = 1;
/// The limits on blocks are the ones to set.
const BLOCK_LIMITS: u32 = 1;
/// Limits are in units of so many bytes.
const UNIT: u64 = 1024;

/// What a project takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of blocks.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Gives a directory to a project, with what will be made in it. What is in it already stays where it is.
pub fn set_project(directory: impl AsFd, project: u32) -> io::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    let mut attributes = FsXattr::default();
    // SAFETY: the descriptor is open for the call, and the kernel writes at most a `struct fsxattr`, which this is.
    check(unsafe { libc::ioctl(fd, GET_XATTR as _, &raw mut attributes) })?;
    attributes.project = project;
    attributes.xflags |= INHERIT;
    // SAFETY: the descriptor is open for the call, and the kernel reads a `struct fsxattr`, which this is.
    check(unsafe { libc::ioctl(fd, SET_XATTR as _, &raw const attributes) })
}

/// What a project takes on the file system of a descriptor. Errors: `ESRCH` where it keeps no project quota, `ENOSYS` before 5.14.
pub fn taken(of: impl AsFd, project: u32) -> io::Result<Taken> {
    let mut block = Block::default();
    control(of, GET_QUOTA, project, &mut block)?;
    Ok(Taken { bytes: block.bytes, inodes: block.inodes })
}

/// Limits what a project may take to so many bytes; zero is no limit. Errors: as [`taken`]; `EPERM`.
pub fn set_limit(of: impl AsFd, project: u32, bytes: u64) -> io::Result<()> {
    let mut block = Block { hard_blocks: bytes.div_ceil(UNIT), valid: BLOCK_LIMITS, ..Block::default() };
    control(of, SET_QUOTA, project, &mut block)
}

/// Whether limits of projects are kept to on the file system of a descriptor. It may count and not limit: ext4 made with the feature
/// and mounted without `prjquota`, XFS mounted with `pqnoenforce`; setting limits succeeds there. Errors: as [`taken`].
pub fn is_enforced(of: impl AsFd) -> io::Result<bool> {
    let mut state = QuotaState { version: STATE_VERSION, pad: 0, flags: 0, rest: [0; 156] };
    let fd = libc::c_long::from(of.as_fd().as_raw_fd());
    let command = GET_STATE << 8 | PROJECT;
    // SAFETY: the descriptor is open for the call, and the kernel reads and writes at most a `struct fs_quota_statv`, whose size this has.
    check(unsafe { libc::syscall(QUOTACTL_FD, fd, command, 0 as libc::c_long, &raw mut state) })?;
    Ok(state.flags & PROJECT_ENFORCED != 0)
}

fn control(of: impl AsFd, command: libc::c_long, project: u32, block: &mut Block) -> io::Result<()> {
    let command = command << 8 | PROJECT;
    let fd = libc::c_long::from(of.as_fd().as_raw_fd());
    // SAFETY: the descriptor is open for the call, and the kernel reads and writes at most a `struct if_dqblk`, which this is.
    check(unsafe { libc::syscall(QUOTACTL_FD, fd, command, libc::c_long::from(project), std::ptr::from_mut(block)) })
}

fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<()> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!((size_of::<FsXattr>(), size_of::<Block>(), size_of::<QuotaState>()), (28, 72, 160));
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(is_enforced(&proc).is_err());
        assert!(taken(&proc, 0).is_err(), "procfs has no quota");
    }
}
