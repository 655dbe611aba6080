//! Creates a container, or enters one, and becomes its process.
//!
//! The monitor executes this program once per task, from the daemon's sealed memory file. It prepares what needs the host's
//! rights, joins the namespaces, and clones the task's process as the monitor's child; that child finishes its own set-up and
//! executes the program. Owns: the order of steps. Must not: decide what a container may do; the spec says so, and what it
//! asks for is done or refused.
//!
//! The program has one thread, which `clone` relies on.
#![allow(unsafe_code)] // Two blocks: the inherited descriptors below, and the clone in `split`.

mod accounts;
mod cgroup;
mod confine;
mod container;
mod dev;
mod exec;
mod failure;
mod hide;
mod mounts;
mod overlay;
mod pod_init;
mod prepare;
mod program;
mod root;
mod sandbox;
mod sources;
mod split;
mod stdio;
mod talk;
mod terminal;

use berth_monitor_api::build::MARKED;
use berth_monitor_api::init_fd;
use berth_monitor_api::spec::{InitSpec, MAX_SPEC};
use berth_sys::openat::{self, Access};
use berth_sys::task;
use failure::{Explain, Failure, Result};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use talk::Talk;

fn main() -> ExitCode {
    // Close-on-exec on everything: what a later step forgets does not reach the container (CVE-2024-21626).
    if task::close_on_exec_from(3).is_err() {
        return ExitCode::FAILURE;
    }
    let (Ok(sync), Ok(monitor)) = (take(init_fd::SYNC), take(init_fd::CHILD)) else {
        // Nobody to tell.
        return ExitCode::FAILURE;
    };
    let mut talk = Talk::new(sync, monitor);
    match run(&mut talk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            talk.failed(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

fn run(talk: &mut Talk) -> Result<()> {
    talk.phase("spec")?;
    runs_sealed()?;
    match read_spec()? {
        InitSpec::Sandbox(spec) => sandbox::run(talk, &spec),
        InitSpec::Container(spec) => container::run(talk, *spec, take(init_fd::TARGET).ok()),
        InitSpec::Exec(spec) => {
            let target = take(init_fd::TARGET).explain(|| "the container's pidfd was not handed over")?;
            exec::run(talk, *spec, target)
        }
    }
}

fn take(number: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: the monitor's contract (`init_fd`) gives these numbers to us, nothing else here opens files by number, and each
    // is asked for at one place that runs once.
    unsafe { task::inherited(number) }
}

/// A container that gets hold of this program's file must not be able to change it for the next (CVE-2019-5736).
fn runs_sealed() -> Result<()> {
    let executable = openat::open_host(Path::new("/proc/self/exe"), Access::Read).explain(|| "open /proc/self/exe")?;
    if task::runs_from_sealed_memory(executable.as_fd()) {
        return Ok(());
    }
    Err(Failure::refused(
        "berth-init runs from a file that can be changed; it must be executed from a sealed memory file",
    ))
}

fn read_spec() -> Result<InitSpec> {
    let file = std::fs::File::from(take(init_fd::SPEC).explain(|| "the spec was not handed over")?);
    let mut bytes = Vec::new();
    file.take(MAX_SPEC as u64 + 1).read_to_end(&mut bytes).explain(|| "read the spec")?;
    // The daemon looks for the mark in this program before it uses it, so a wrong pair does not come this far.
    InitSpec::decode(&bytes).map_err(|e| Failure::refused(format!("the spec cannot be read: {e:?} ({MARKED})")))
}
