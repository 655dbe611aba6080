//! Waiting for many descriptors (epoll(7)).
//!
//! Owns: the interest list and its tokens. Must not: own the descriptors that are watched.
use rustix::event::{Timespec, epoll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Most events that one wait returns.
pub const BATCH: usize = 32;

/// What to be woken for; hang-up and error always are. All are level-triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something can be read.
    Read,
    /// Something can be read, or written.
    ReadWrite,
    /// A cgroup or proc file has changed (`EPOLLPRI`).
    Priority,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Self::Priority => epoll::EventFlags::PRI,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The token that the descriptor was added with.
    pub token: u64,
    /// Reading will not block (hang-up and errors included: the read tells them).
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
}

/// An interest list.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty one, close-on-exec.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor. `PermissionDenied` for one that cannot be watched (a regular file).
    ///
    /// [`Epoll::remove`] it before closing it: the kernel's list holds the open file, and copies in other processes would keep
    /// it alive.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what a watched descriptor is watched for.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Stops watching.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits up to `timeout` (`None` is for ever) and puts at most [`BATCH`] events into `events`. An interruption by a
    /// signal, as after SIGSTOP and SIGCONT, counts as no events.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let timeout = timeout.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let (found, _) = match epoll::wait(&self.0, &mut buffer, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        events.extend(found.iter().map(|event| {
            // Copied out of the packed struct before use.
            let flags = event.flags;
            Event {
                token: event.data.u64(),
                readable: flags.intersects(
                    epoll::EventFlags::IN | epoll::EventFlags::PRI | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                ),
                writable: flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes reads and writes of the open file answer `WouldBlock` instead of waiting. It holds for every copy of the descriptor, in
/// other processes too.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Reads once, as much as is there.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_ready_and_nothing_else() {
        let epoll = Epoll::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        epoll.add(read.as_fd(), 7, Interest::Read).unwrap();
        let mut events = Vec::new();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
        rustix::io::write(&write, b"x").unwrap();
        epoll.wait(&mut events, None).unwrap();
        assert_eq!(events, [Event { token: 7, readable: true, writable: false }]);
        epoll.remove(read.as_fd()).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(epoll.add(file.as_fd(), 1, Interest::Read).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
