//! What is set while we are still the host's root and outside every namespace of the pod; the child inherits it.
//!
//! Owns: OOM score, raised limits, protection from inspection. Must not: depend on the container.
use crate::failure::{Explain, Result};
use berth_monitor_api::spec::{Process, Rlimit};
use berth_sys::procfs::Procfs;
use berth_sys::task;
use std::io;

/// Everything of a process that needs the host's rights. Returns the procfs that later steps write to.
pub fn prepare(process: &Process) -> Result<Procfs> {
    let procfs = Procfs::processes_only().explain(|| "mount a private procfs")?;
    // Before any namespace is joined, so that nobody in there can trace us (CVE-2016-9962).
    task::forbid_inspection().explain(|| "forbid inspection")?;
    if let Some(score) = process.oom_score_adj {
        set_oom_score(&procfs, score)?;
    }
    process.rlimits.iter().try_for_each(raise)?;
    Ok(procfs)
}

/// Sets the OOM score adjustment. Below the lowest value that was ever set with `CAP_SYS_RESOURCE` the kernel answers EACCES
/// (`fs/proc/base.c`, __set_oom_adj); then the lowest value that it takes is found and kept.
pub fn set_oom_score(procfs: &Procfs, wanted: i32) -> Result<()> {
    const FILE: &str = "self/oom_score_adj";
    let write = |value: i32| procfs.write(FILE, value.to_string().as_bytes());
    match write(wanted) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        other => return other.explain(|| format!("set oom_score_adj to {wanted}")),
    }
    let now = procfs.read(FILE, 64).explain(|| "read oom_score_adj")?;
    // The value that is in force is always allowed.
    let mut allowed: i32 = String::from_utf8_lossy(&now).trim().parse().unwrap_or(1000);
    let mut refused = wanted;
    while allowed - refused > 1 {
        let middle = refused + (allowed - refused) / 2;
        match write(middle) {
            Ok(()) => allowed = middle,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => refused = middle,
            Err(e) => return Err(e).explain(|| format!("set oom_score_adj to {middle}")),
        }
    }
    Ok(())
}

/// Raises a hard limit; only the host's root may. The exact values are set last, since lowering needs no right.
fn raise(limit: &Rlimit) -> Result<()> {
    let what = || format!("raise limit {} to {}", limit.resource, limit.hard);
    let (soft, hard) = task::limits(limit.resource).explain(what)?;
    if limit.hard > hard {
        task::set_limits(limit.resource, soft, limit.hard).explain(what)?;
    }
    Ok(())
}
