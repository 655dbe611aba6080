//! The terminal of a task, from the container's own devpts.
//!
//! Owns: opening it without trusting a path (CVE-2025-52565), handing its master to the monitor. Must not: keep the master.
use crate::failure::{Explain, Failure, Result};
use crate::root::Root;
use crate::talk::Talk;
use berth_monitor_api::child::ChildMessage;
use berth_monitor_api::spec::TerminalSize;
use berth_sys::openat::{self, Access, Kind, magic};
use berth_sys::{mount, pty, task};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// First and last major number of Unix98 slaves (`Documentation/admin-guide/devices.txt`).
const SLAVE_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Allocates the terminal, sends its master to the monitor, makes the slave the controlling terminal and standard streams.
/// The process must lead a session that has none. `dev` is the /dev that we made, which then gets its console.
pub fn open(talk: &Talk, root: &Root, size: TerminalSize, dev: Option<&OwnedFd>) -> Result<()> {
    let master = root.open(Path::new("/dev/pts/ptmx"), Access::ReadWrite).explain(|| "open /dev/pts/ptmx")?;
    expect_device(&master, "ptmx", |node| node == (5, 2))?;
    let slave = pty::slave_of(master.as_fd()).explain(|| "open the terminal's slave")?;
    expect_device(&slave, "the terminal", |(major, _)| SLAVE_MAJORS.contains(&major))?;
    pty::set_size(slave.as_fd(), size.rows, size.cols).explain(|| "set the terminal's size")?;
    if let Some(dev) = dev {
        console(dev, &slave)?;
    }
    talk.tell_monitor(ChildMessage::Terminal, master.as_fd())?;
    pty::make_controlling(slave.as_fd()).explain(|| "take the terminal as controlling terminal")?;
    (0..=2).try_for_each(|fd| task::place(slave.as_fd(), fd)).explain(|| "take the terminal as standard streams")
}

fn console(dev: &OwnedFd, slave: &OwnedFd) -> Result<()> {
    let what = || "make /dev/console";
    let name = Path::new("console");
    match openat::make_file(dev.as_fd(), name, 0o600) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => drop(other.explain(what)?),
    }
    let file = openat::open_below(dev.as_fd(), name, Access::Path, openat::Walk::SameMount).explain(what)?;
    let tree = mount::clone_fd(slave.as_fd(), false).explain(what)?;
    mount::attach(tree.as_fd(), file.as_fd()).explain(what)
}

fn expect_device(fd: &OwnedFd, name: &str, right: impl Fn((u32, u32)) -> bool) -> Result<()> {
    let facts = openat::facts(fd.as_fd()).explain(|| format!("look at {name}"))?;
    let file_system = openat::file_system(fd.as_fd()).explain(|| format!("statfs {name}"))?;
    if facts.kind == Kind::CharacterDevice && right(facts.node) && file_system == magic::DEVPTS {
        return Ok(());
    }
    Err(Failure::refused(format!("{name} of the container is not a terminal device on devpts")))
}
