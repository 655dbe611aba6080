//! Running a program in a node's namespaces and control group: the test program runs itself with words that [`dispatch`] knows, joins,
//! and becomes the program, whose process id is then the one that was spawned.
//!
//! Must not: start threads before it has joined (a mount namespace is joined by single-threaded processes only).
use crate::{cgroups, holder};
use nix::sched::{CloneFlags, setns};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// First argument: become the process that holds a node's namespaces.
pub const HOLD: &str = "--hold-node";
/// First argument: join a node and execute. Then: holder's process id, control group or `-`, program, its arguments.
pub const ENTER: &str = "--enter-node";

/// Does what the first argument says if it is one of ours, and returns otherwise. The first call of every `main` here.
pub fn dispatch() {
    let mut args = std::env::args_os().skip(1);
    let done = match args.next().as_deref().and_then(|word| word.to_str()) {
        Some(HOLD) => holder::main(&args.collect::<Vec<_>>()),
        Some(ENTER) => enter(&args.collect::<Vec<_>>()),
        _ => return,
    };
    if let Err(e) = done {
        eprintln!("{}: {e}", std::env::args().nth(1).unwrap_or_default());
        std::process::exit(125);
    }
    std::process::exit(0);
}

fn enter(args: &[OsString]) -> io::Result<()> {
    let [holder, group, program, rest @ ..] = args else {
        return Err(io::Error::other("too few arguments"));
    };
    let namespace = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", holder.to_string_lossy()));
    let (net, mnt) = (namespace("net")?, namespace("mnt")?);
    if group != "-" {
        cgroups::join(&group.to_string_lossy())?;
    }
    setns(net, CloneFlags::CLONE_NEWNET)?;
    setns(mnt, CloneFlags::CLONE_NEWNS)?;
    // Returns only if it fails.
    let error = Command::new(program).args(rest).exec();
    Err(io::Error::new(error.kind(), format!("{}: {error}", program.to_string_lossy())))
}
