//! Starting a program from a descriptor: clone3(2) in the manner of vfork, then execveat(2).
//!
//! Owns: what happens between the clone and the exec. Must not: know which program it is. The caller's memory is not copied,
//! however large it is; the calling thread sleeps until the exec, other threads run on.
use crate::clone_args::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CloneArgs, flag};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::{fmt, io, ptr};

/// Numbers that a program can find its descriptors under are below this.
const TARGETS: RawFd = 16;

/// What to start and how.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// The program: an executable file or memory file. A script needs a path and is refused by the kernel (ENOENT).
    pub program: BorrowedFd<'a>,
    /// Arguments, the program's name first.
    pub args: &'a [&'a CStr],
    /// Environment, `KEY=value`.
    pub env: &'a [&'a CStr],
    /// Descriptors and the numbers under which the program finds them, each below 16. Every other descriptor is closed.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// A cgroup v2 directory that the process is born in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Cgroup v1 `tasks` files, open for writing, that the process writes `0` to before the exec.
    pub tasks: &'a [BorrowedFd<'a>],
    /// Soft and hard limit of open files, if not the caller's.
    pub nofile: Option<(u64, u64)>,
    /// Start a session of its own.
    pub new_session: bool,
    /// Make it a child of the caller's parent (`CLONE_PARENT`), which is then the one to reap it.
    pub sibling: bool,
}

impl<'a> Spawn<'a> {
    /// A program with its arguments and nothing else: no environment, no descriptors.
    pub fn new(program: BorrowedFd<'a>, args: &'a [&'a CStr]) -> Self {
        Self {
            program,
            args,
            env: &[],
            fds: &[],
            cgroup: None,
            tasks: &[],
            nofile: None,
            new_session: false,
            sibling: false,
        }
    }
}

/// A started process.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: u32,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Why a program did not start.
#[derive(Debug)]
pub struct SpawnError {
    /// What failed.
    pub step: &'static str,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}

impl std::error::Error for SpawnError {}

impl SpawnError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, error }
    }
}

/// What the child reads, and where it leaves the reason of a failure. It lives in the frame of the caller, which waits.
struct Plan<'a> {
    spawn: &'a Spawn<'a>,
    program: RawFd,
    /// Sources and targets. All sources are numbered above all targets, so no placing overwrites one.
    placed: &'a [(RawFd, RawFd)],
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    failed_step: AtomicI32,
    errno: AtomicI32,
}

/// Names of the child's steps, by number.
const STEPS: [&str; 6] = [
    "start a session",
    "join the cgroup",
    "set the limit of open files",
    "place the descriptors",
    "close other descriptors",
    "execute the program",
];

/// Starts it. In the new program all signals have their default action and none is blocked. On an error nothing is left behind.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned, SpawnError> {
    let mut raised = Vec::new();
    let mut placed = Vec::with_capacity(spawn.fds.len());
    for (fd, target) in spawn.fds {
        if !(0..TARGETS).contains(target) {
            return Err(SpawnError { step: STEPS[3], error: io::ErrorKind::InvalidInput.into() });
        }
        placed.push((raise(*fd, &mut raised).map_err(SpawnError::at(STEPS[3]))?, *target));
    }
    let program = raise(spawn.program, &mut raised).map_err(SpawnError::at(STEPS[3]))?;
    let pointers = |list: &[&CStr]| -> Vec<_> { list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect() };
    let (argv, envp) = (pointers(spawn.args), pointers(spawn.env));
    let plan = Plan {
        spawn,
        program,
        placed: &placed,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        failed_step: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    let spawned = clone(&plan).map_err(SpawnError::at("clone"))?;
    let errno = plan.errno.load(Ordering::Relaxed);
    if errno == 0 {
        return Ok(spawned);
    }
    if !spawn.sibling {
        reap(&spawned);
    }
    let step = usize::try_from(plan.failed_step.load(Ordering::Relaxed)).ok().and_then(|n| STEPS.get(n)).copied();
    Err(SpawnError { step: step.unwrap_or("start"), error: io::Error::from_raw_os_error(errno) })
}

/// A number for the descriptor that is above every target; a copy is made where needed and kept in `raised`.
fn raise(fd: BorrowedFd<'_>, raised: &mut Vec<OwnedFd>) -> io::Result<RawFd> {
    if fd.as_raw_fd() >= TARGETS {
        return Ok(fd.as_raw_fd());
    }
    let copy = rustix::io::fcntl_dupfd_cloexec(fd, TARGETS)?;
    let number = copy.as_raw_fd();
    raised.push(copy);
    Ok(number)
}

/// Waits for a child that failed before its exec; it is exiting already.
fn reap(spawned: &Spawned) {
    let pidfd = spawned.pidfd.as_raw_fd();
    // SAFETY: siginfo_t may be all zeros, and waitid(2) writes into it only.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(libc::P_PIDFD, pidfd.cast_unsigned(), &mut info, libc::WEXITED | libc::__WALL) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// Clones the child and sleeps until it has executed the program or failed.
fn clone(plan: &Plan<'_>) -> io::Result<Spawned> {
    let mut pidfd: RawFd = -1;
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
    // With CLONE_PARENT the exit signal is that of the caller's own (clone(2)).
    let mut exit_signal = libc::SIGCHLD;
    if plan.spawn.sibling {
        flags |= libc::CLONE_PARENT;
        exit_signal = 0;
    }
    let mut flags = flag(flags) | CLONE_CLEAR_SIGHAND;
    let mut cgroup = 0;
    if let Some(directory) = plan.spawn.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = flag(directory.as_raw_fd());
    }
    let args = CloneArgs {
        flags,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: flag(exit_signal),
        cgroup,
        ..CloneArgs::default()
    };
    // No handler of ours may run in the child, which shares our memory: block everything until the clone is done. The child
    // sets its own mask.
    let mut all: u64 = u64::MAX;
    let mut before: u64 = 0;
    // SAFETY: both masks are 8 bytes, as the last argument says, and live until the call returns.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw mut all, &raw mut before, 8) };
    // SAFETY: `args` is a valid clone_args whose pidfd points to `pidfd`; `plan` outlives the call, because CLONE_VFORK
    // returns here only after the child has executed or exited; `child` never returns.
    let pid = unsafe { clone_and_run(&args, plan) };
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw mut before, ptr::null_mut::<u64>(), 8) };
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid: u32::try_from(pid).unwrap_or(0), pidfd })
}

/// clone3(2) on the caller's stack. The child calls [`child`] at once, below the frames that the sleeping caller still needs;
/// no compiled code of the caller's frame runs twice. Returns the pid or a negative errno.
///
/// # Safety
/// `args` asks for CLONE_VM and CLONE_VFORK, gives no stack, and its pointers are valid.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_run(args: &CloneArgs, plan: &Plan<'_>) -> isize {
    let result: isize;
    // SAFETY: without `nostack` the compiler keeps nothing below the stack pointer and has it aligned for a call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call {child}",
            "ud2",
            "2:",
            child = sym child,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") args.size(),
            in("r12") ptr::from_ref(plan),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_run(args: &CloneArgs, plan: &Plan<'_>) -> isize {
    let result: isize;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x0, x20",
            "bl {child}",
            "brk #1",
            "2:",
            child = sym child,
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(args) as isize => result,
            in("x1") args.size(),
            in("x20") ptr::from_ref(plan),
            lateout("x30") _,
        );
    }
    result
}

/// The child, from clone to exec. It shares all memory with the sleeping caller, so it allocates nothing, takes no lock and
/// makes raw system calls only.
unsafe extern "C" fn child(plan: *const Plan<'_>) -> ! {
    // SAFETY: the caller's plan lives until the exec (CLONE_VFORK); `run` keeps to the rules above.
    unsafe {
        let plan = &*plan;
        let (step, errno) = run(plan);
        plan.failed_step.store(step, Ordering::Relaxed);
        plan.errno.store(errno, Ordering::Relaxed);
        loop {
            libc::syscall(libc::SYS_exit_group, 127);
        }
    }
}

/// Walks the steps; returns only if one fails: its number and the errno.
///
/// # Safety
/// Only in the child of [`clone_and_run`].
unsafe fn run(plan: &Plan<'_>) -> (i32, i32) {
    // SAFETY: every call below takes integers, or pointers to values that live in this frame or in the plan.
    unsafe {
        // Ignored signals stay ignored over an exec, so each is set to its default. A zeroed kernel sigaction is SIG_DFL.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8);
        }
        let none: u64 = 0;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, ptr::null_mut::<u64>(), 8);
        if plan.spawn.new_session && libc::syscall(libc::SYS_setsid) < 0 {
            return (0, last_errno());
        }
        for file in plan.spawn.tasks {
            if libc::syscall(libc::SYS_write, file.as_raw_fd(), c"0".as_ptr(), 1) < 0 {
                return (1, last_errno());
            }
        }
        if let Some((soft, hard)) = plan.spawn.nofile {
            let limit = [soft, hard];
            let none = ptr::null_mut::<u64>();
            if libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), none) < 0 {
                return (2, last_errno());
            }
        }
        for (source, target) in plan.placed {
            if libc::syscall(libc::SYS_dup3, *source, *target, 0) < 0 {
                return (3, last_errno());
            }
        }
        // Below the first number above all targets, what is not a target is closed one by one.
        for number in 0..TARGETS {
            if !plan.placed.iter().any(|(_, target)| *target == number) {
                libc::syscall(libc::SYS_close, number);
            }
        }
        if libc::syscall(libc::SYS_close_range, TARGETS, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0 {
            return (4, last_errno());
        }
        let path = c"".as_ptr();
        libc::syscall(libc::SYS_execveat, plan.program, path, plan.argv, plan.envp, libc::AT_EMPTY_PATH);
        (5, last_errno())
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests;
