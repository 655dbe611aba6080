//! Attributes of the calling process that are neither ids nor namespaces: limits, signals, session, keyring, descriptors.
//!
//! Owns: the calls. Must not: keep state.
use rustix::process as rx;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Keeps other processes from tracing this one and from its /proc files until it executes a program (CVE-2016-9962).
pub fn forbid_inspection() -> io::Result<()> {
    Ok(rx::set_dumpable_behavior(rx::DumpableBehavior::NotDumpable)?)
}

/// Sets `no_new_privs`.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Starts a session without a terminal.
pub fn new_session() -> io::Result<()> {
    rx::setsid()?;
    Ok(())
}

/// Joins a fresh, anonymous session keyring. Kernels without keyrings (ENOSYS) have nothing to leak.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is NULL, which asks for an anonymous keyring; nothing else is a pointer.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    let error = io::Error::last_os_error();
    if serial >= 0 || error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) }
}

/// Sets the name that ps shows, cut at 15 bytes.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Ends the process at once, without running anything of the program that cloned it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Takes a descriptor that the program was started with.
///
/// # Safety
/// Nothing else may own `number`, and it must be asked for once.
pub unsafe fn inherited(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: fcntl(F_GETFD) takes integers; it fails if the number is not open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller says that it is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Descriptors 0, 1 and 2, which Rust's runtime has opened if the caller of the program had not, and which stay open.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: see above; nothing in our programs closes them, and `place` only replaces what they refer to.
    unsafe { [BorrowedFd::borrow_raw(0), BorrowedFd::borrow_raw(1), BorrowedFd::borrow_raw(2)] }
}

/// Sets the file mode creation mask.
pub fn set_umask(mask: u32) {
    rx::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Gives every signal its default action and unblocks all: ignored signals survive `execve`, and Rust ignores SIGPIPE.
pub fn reset_signals() -> io::Result<()> {
    // The kernel's sigaction and sigset, not libc's, which hides the signals that it uses itself. All zero: SIG_DFL, none.
    let action = [0u64; 4];
    let empty = 0u64;
    let size = size_of::<u64>();
    for signal in 1..=64 {
        // SAFETY: `action` is at least as long as the kernel's struct sigaction and outlives the call. The kernel refuses
        // SIGKILL and SIGSTOP, which need nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null_mut::<u8>(), size) };
    }
    // SAFETY: `empty` is a kernel sigset of the size given and outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut::<u8>(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on as close-on-exec (5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes the descriptors `first..=last`. Values that own one of them must be forgotten or never dropped.
pub fn close_between(first: u32, last: u32) -> io::Result<()> {
    close_range(first, last, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: integers only. Owners of closed descriptors are the callers' business, as with close(2).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts a copy of `fd` at `number`, not close-on-exec.
pub fn place(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: integers only; `number` is one of 0, 1 and 2 by the callers' contract, which no value owns.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// struct rlimit64 of linux/resource.h.
#[repr(C)]
struct Limits {
    soft: u64,
    hard: u64,
}

/// Soft and hard limit of a resource (`RLIMIT_*`), by number.
pub fn limits(resource: u32) -> io::Result<(u64, u64)> {
    let mut old = Limits { soft: 0, hard: 0 };
    prlimit(resource, std::ptr::null(), &raw mut old)?;
    Ok((old.soft, old.hard))
}

/// Sets soft and hard limit of a resource.
pub fn set_limits(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    prlimit(resource, &Limits { soft, hard }, std::ptr::null_mut())
}

fn prlimit(resource: u32, new: *const Limits, old: *mut Limits) -> io::Result<()> {
    // SAFETY: the two callers above pass null or the address of a value that outlives the call; 0 is the calling process.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, old) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes the working directory to an open directory.
pub fn change_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rx::fchdir(dir)?)
}

/// Changes the working directory by a path, with the rights of the process.
pub fn change_dir_to(path: &std::path::Path) -> io::Result<()> {
    Ok(rx::chdir(path)?)
}

/// The working directory as the kernel names it. `(unreachable)` in front means that it is outside the root.
pub fn current_dir() -> io::Result<Vec<u8>> {
    Ok(rx::getcwd(Vec::new())?.into_bytes())
}

/// Whether the program that runs is a memory file that nobody can write, shrink or grow any more (CVE-2019-5736).
pub fn runs_from_sealed_memory(executable: BorrowedFd<'_>) -> bool {
    use rustix::fs::SealFlags;
    let wanted = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_get_seals(executable).is_ok_and(|seals| seals.contains(wanted))
}

/// Blocks every signal and then reaps every child for ever: PID 1 of a shared PID namespace.
pub fn reap_for_ever() -> ! {
    // SAFETY: `all` is written by sigfillset before use and outlives the calls; waitpid gets a valid status pointer.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        loop {
            let mut status = 0;
            while libc::waitpid(-1, &raw mut status, libc::WNOHANG) > 0 {}
            let mut signal = 0;
            libc::sigwait(&raw const all, &raw mut signal);
        }
    }
}

/// Replaces the program. Returns only on failure. The lists end with a null pointer as `execve(2)` wants them.
pub fn execute(program: &CStr, arguments: &ExecList<'_>, environment: &ExecList<'_>) -> io::Error {
    // SAFETY: `ExecList` is null-terminated and borrows its strings, which outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// A null-terminated list of strings, made before the last step so that the step itself allocates nothing.
pub struct ExecList<'a> {
    pointers: Vec<*const libc::c_char>,
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> ExecList<'a> {
    /// Borrows the strings.
    pub fn new<S: AsRef<CStr>>(strings: &'a [S]) -> Self {
        let pointers = strings.iter().map(|s| s.as_ref().as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, strings: std::marker::PhantomData }
    }
}

/// A pipe whose ends close on exec: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Reads once into `buffer`; EINTR is tried again.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Writes once; EINTR is tried again. `write(2)` is what a seccomp profile allows where it may deny `sendmsg(2)`.
pub fn write(fd: impl AsFd, data: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(&fd, data) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
