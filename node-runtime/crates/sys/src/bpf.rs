//! bpf(2) for cgroup v2 device programs: load, attach, list. Must not know what a program decides.
//!
//! Layouts are those of `union bpf_attr` in `linux/bpf.h`, the part for each command. Needs CAP_BPF and CAP_NET_ADMIN, or
//! CAP_SYS_ADMIN.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// The kernel's verifier may ask to try again when a signal or memory pressure interrupted it.
const LOAD_ATTEMPTS: u32 = 5;
/// Most programs that one group can have per attach type (`BPF_CGROUP_MAX_PROGS`, kernel/bpf/cgroup.c).
const MAX_PROGRAMS: usize = 64;
/// Most instructions we hand over; the kernel's own limit for privileged loaders is a million.
const MAX_INSTRUCTIONS: usize = 65_536;

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation and source.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// The whole of the query part: some kernels write past a shorter one.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// A descriptor as the kernel takes it in an attribute. Never negative, because the descriptor is open.
fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Calls bpf(2) with one of the attribute structs above.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, exclusively borrowed, fully initialised repr(C) struct and its own size is passed along. The
    // addresses in it point into slices that the callers below keep alive (and writable where the kernel writes) over the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Loads a device program. The kernel verifies it; the descriptor is close-on-exec (the kernel sets that itself).
///
/// Errors: `InvalidInput` for an empty or oversized program, else errno of bpf(2).
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "device program is empty or too long"));
    }
    let license = c"Apache-2.0";
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"berth_devices");
    let mut attempt = 0;
    loop {
        let mut attr = LoadAttr {
            prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
            insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
            insns: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            prog_name: name,
            ..LoadAttr::default()
        };
        match bpf(BPF_PROG_LOAD, &mut attr) {
            Ok(fd) => {
                // SAFETY: a successful BPF_PROG_LOAD returns a new descriptor that nobody else owns.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
            }
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && attempt < LOAD_ATTEMPTS => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Attaches a device program to a v2 cgroup directory, beside any others: all of them must allow an access. The group keeps
/// the program; the descriptor can be closed.
pub fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: fd_number(group),
        attach_bpf_fd: fd_number(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        ..AttachAttr::default()
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Ids of the device programs attached to a v2 cgroup directory itself, not to those above it.
pub fn device_programs(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: fd_number(group),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}
