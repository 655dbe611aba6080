//! The control group of whoever works at an operation and was started in a pod's, by a cluster's agent: an own one until its end.
//!
//! Owns: going there and back, and taking away what those who were killed there have left. Must not: move the dead-man timer, which has its own
//! beside it.
use super::deadman;
use super::record::Lock;
use super::talk::Talk;
use crate::layout::Layout;
use crate::{apart, node_files};
use berth_cgroups::{Apart, Cgroups, Driver};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long it waits at its end for the dead-man timer to see that, which looks five times a second.
const GO_BACK_LIMIT: Duration = Duration::from_secs(2);

/// Where this process was before it left a pod's control groups.
static FORMER: Mutex<apart::Left> = Mutex::new(None);

/// The group above those of adopters and their timers.
fn base(layout: &Layout) -> String {
    format!("{}-adopt", layout.name())
}

/// Moves this process to a group of that name below it. Tried twice: whoever worked before, or finds it empty, may just take it away.
pub(super) fn enter(cgroups: &Cgroups, layout: &Layout, name: &str) -> berth_model::Result<Apart> {
    let there = || cgroups.move_apart(&base(layout), name);
    there().or_else(|_| there())
}

/// Whoever is started from a pod (in the node's namespaces) must not end when that pod does. Without a pod nothing is moved.
pub(super) fn leave(layout: &Layout) {
    let text = node_files::text("/proc/self/cgroup").unwrap_or_default();
    if text.contains("kubepods") {
        let own = |cgroups: &Cgroups| enter(cgroups, layout, "adopter").map(Some);
        let complain = |e| {
            Talk { quiet: false }
                .say(&format!("this process stays in a pod's control group, and may end with it: {e}"));
        };
        let left = apart::leave(own, complain);
        *FORMER.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }
}

/// At the end this process goes back to where it was started, and nothing of it stays on the node. The dead-man timer of an operation was
/// started in this group and goes back to it: where it still watches, the group stays.
pub(super) async fn go_back(layout: &Layout) {
    let left = FORMER.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((cgroups, apart)) = left else { return };
    let end = Instant::now() + GO_BACK_LIMIT;
    while deadman::watches(layout) {
        if Instant::now() > end {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Something that was started here may go on here, as a kubelet whose command gives it no group: then the group stays.
    let _ = cgroups.rejoin(&apart).await;
}

/// A process that was killed leaves its group, empty: where nobody works at an operation or watches one, it goes.
pub(super) async fn clear(layout: &Layout) {
    if nobody_works(layout)
        && let Ok(cgroups) = Cgroups::probe(Driver::Cgroupfs)
    {
        // Something that was started there may go on there.
        let _ = cgroups.remove_empty(&base(layout)).await;
    }
}

fn nobody_works(layout: &Layout) -> bool {
    Lock::holder(layout).is_none() && !deadman::watches(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_of_nobody_where_nobody_works_or_watches() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        assert!(nobody_works(&layout));
        let lock = Lock::take(&layout).unwrap().unwrap();
        assert!(!nobody_works(&layout));
        let watching = deadman::mark(&layout, "op").unwrap().unwrap();
        drop(lock);
        assert!(!nobody_works(&layout));
        drop(watching);
        assert!(nobody_works(&layout));
    }
}
