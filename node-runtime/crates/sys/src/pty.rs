//! Terminals (pty(7), ioctl_tty(2)).
//!
//! Owns: opening a pair without ever naming a path of the slave, sizes, the controlling terminal. Must not: copy bytes.
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Opens a pair from a ptmx device (`/dev/ptmx`, or a container's own `/dev/pts/ptmx`): master, slave. Both are
/// close-on-exec and become nobody's controlling terminal. The slave comes from the master itself (`TIOCGPTPEER`), so no
/// path that a container controls is followed (CVE-2025-52565).
pub fn open(ptmx: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(ptmx, flags, Mode::empty())?;
    let slave = slave_of(master.as_fd())?;
    Ok((master, slave))
}

/// The slave of a master that was just opened.
pub fn slave_of(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    rustix::pty::unlockpt(master)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(rustix::pty::ioctl_tiocgptpeer(master, peer)?)
}

/// Sets the size in characters; the kernel sends SIGWINCH if it changed.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// The size: rows, columns.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Whether the descriptor is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Makes the terminal the controlling one of the caller's session, which must have none yet (`TIOCSCTTY`).
pub fn make_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal.as_fd())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_connected_and_has_a_size() {
        let (master, slave) = open(Path::new("/dev/ptmx")).unwrap();
        assert!(is_terminal(slave.as_fd()));
        set_size(master.as_fd(), 24, 80).unwrap();
        assert_eq!(size(slave.as_fd()).unwrap(), (24, 80));
        rustix::io::write(&slave, b"hi").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&master, &mut buffer).unwrap(), 2);
    }
}
