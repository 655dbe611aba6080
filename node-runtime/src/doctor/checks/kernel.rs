//! The kernel and its clock.
use crate::doctor::facts::Facts;
use crate::doctor::finding::{CLOCK_BEHIND, Finding, KERNEL_FEATURE, KERNEL_OLD, LSM_INFO};

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (5, 15);

pub(super) fn kernel(facts: &Facts, found: &mut Vec<Finding>) {
    let kernel = &facts.kernel;
    if let Some((major, minor)) = kernel.version.filter(|v| *v < OLDEST) {
        let what = format!("the kernel is {major}.{minor}, supported are {}.{} and newer", OLDEST.0, OLDEST.1);
        found.push(KERNEL_OLD.found(what, "install a newer kernel"));
    }
    for feature in &kernel.missing {
        found.push(
            KERNEL_FEATURE
                .found(format!("the kernel has no {feature}"), format!("modprobe it, or take a kernel with {feature}")),
        );
    }
    if let Some(built) = facts.daemon.built.filter(|built| *built > facts.now) {
        let what =
            format!("the clock is {} s behind the time at which the daemon's program was written", built - facts.now);
        found.push(CLOCK_BEHIND.found(what, "timedatectl set-ntp true, or chronyc makestep"));
    }
    if !kernel.lsm.is_empty() {
        found.push(LSM_INFO.found(kernel.lsm.join(", "), "nothing"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_told() {
        let mut facts = Facts { now: 100, ..Facts::default() };
        facts.kernel.version = Some((6, 1));
        facts.daemon.built = Some(99);
        let mut found = Vec::new();
        kernel(&facts, &mut found);
        assert!(found.is_empty());
        facts.kernel.version = Some((5, 10));
        facts.kernel.missing = vec!["overlay file system"];
        facts.kernel.lsm = vec!["apparmor".into()];
        facts.daemon.built = Some(160);
        kernel(&facts, &mut found);
        assert_eq!(
            found.iter().map(|f| f.id).collect::<Vec<_>>(),
            ["kernel-old", "kernel-feature", "clock-behind", "lsm"]
        );
        assert!(found[2].what.contains("60 s"));
    }
}
