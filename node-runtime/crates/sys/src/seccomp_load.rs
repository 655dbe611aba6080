//! Loads a compiled seccomp filter into the calling process (`seccomp(2)`).
//!
//! Owns: the call. Must not: compile or change a program.
use std::io;

/// One instruction (`linux/filter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

// struct sock_fprog of linux/filter.h.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Flags that would hand out a descriptor or touch other threads: `TSYNC` and `NEW_LISTENER` (`linux/seccomp.h`).
const REFUSED_FLAGS: u32 = 0x1 | 0x8;

/// Loads a filter. Needs `no_new_privs` or `CAP_SYS_ADMIN` (EACCES otherwise).
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    let len = u16::try_from(program.len()).ok().filter(|n| *n > 0 && flags & REFUSED_FLAGS == 0);
    let Some(len) = len else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: `program` has the kernel's layout, points at `len` instructions, and lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
