//! Standard streams as the monitor left them: pipes, or the host's null device.
//!
//! Owns: making them the container's. Must not: read or write them.
use crate::failure::{Explain, Failure, Result};
use crate::root::Root;
use berth_sys::openat::{self, Access, Facts, Kind};
use berth_sys::task;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

const NULL: (u32, u32) = (1, 3);

/// Lets the users of a user namespace reopen the pipes by /dev/stdout: their owner, the host's root, means nothing in there.
/// A pipe has no name, so its mode matters only to who can look into the process already.
pub fn open_pipes_to_all() -> Result<()> {
    for (fd, facts) in streams()? {
        if facts.kind == Kind::Fifo {
            openat::change_mode(fd.as_fd(), 0o666).explain(|| "open the pipes to the pod's users")?;
        }
    }
    Ok(())
}

/// Replaces streams that are the host's null device by the container's own, if it has one.
pub fn reopen_null(root: &Root) -> Result<()> {
    let streams = streams()?;
    if !streams.iter().any(|(_, facts)| is_null(facts)) {
        return Ok(());
    }
    let what = || "open /dev/null in the container";
    let own = match root.open(Path::new("/dev/null"), Access::Path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.explain(what)?,
    };
    // Looked at before it is opened: opening some other device could have effects.
    if !is_null(&openat::facts(own.as_fd()).explain(what)?) {
        return Err(Failure::refused("/dev/null in the container is not the null device"));
    }
    let own = root.open(Path::new("/dev/null"), Access::ReadWrite).explain(what)?;
    if !is_null(&openat::facts(own.as_fd()).explain(what)?) {
        return Err(Failure::refused("/dev/null in the container is not the null device"));
    }
    for (number, (_, facts)) in (0..).zip(&streams) {
        if is_null(facts) {
            task::place(own.as_fd(), number).explain(|| "take the container's null device")?;
        }
    }
    Ok(())
}

/// Gives the streams to the user, so that /dev/stdout can be reopened. The null device is everybody's already; where the
/// kernel refuses, the streams work as they are.
pub fn give_to(uid: u32) -> Result<()> {
    for (fd, facts) in streams()? {
        if !is_null(&facts) && facts.uid != uid {
            let _ = openat::change_owner(fd.as_fd(), Some(uid), None);
        }
    }
    Ok(())
}

fn streams() -> Result<[(BorrowedFd<'static>, Facts); 3]> {
    let look = |fd: BorrowedFd<'static>| -> Result<_> {
        Ok((fd, openat::facts(fd).explain(|| "look at the standard streams")?))
    };
    let [input, output, error] = task::standard_streams();
    Ok([look(input)?, look(output)?, look(error)?])
}

fn is_null(facts: &Facts) -> bool {
    facts.kind == Kind::CharacterDevice && facts.node == NULL
}
