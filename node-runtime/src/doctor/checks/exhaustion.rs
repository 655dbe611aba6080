//! What runs out: disks, inodes, memory, processes, files, addresses.
use super::percent;
use crate::commands::table::size;
use crate::doctor::facts::{Disk, Facts};
use crate::doctor::finding::{
    ADDRESSES_LOW, ADDRESSES_OUT, DAEMON_FILES, DISK_FULL, DISK_LOW, FILES_LOW, Finding, INODES_FULL, INOTIFY_LOW,
    LOG_BIG, MEMORY_LOW, PID_MAX, PIDS_GROUP, SWAP_ON,
};

/// From here on a disk is full: less than this fails pulls at once.
const FULL: u64 = 97;
/// The kubelet's default for imagefs.available is 15 %.
const LOW: u64 = 85;
/// From here on something else runs out soon.
const SOON: u64 = 90;
/// A log that the kubelet has not rotated: its default is 10 MiB a file.
const BIG_LOG: u64 = 200 << 20;
/// Memory that is available below this share is little.
const MEMORY: u64 = 5;

pub(super) fn disk(facts: &Facts, found: &mut Vec<Finding>) {
    let flags = &facts.daemon.flags;
    for disk in &facts.disks {
        let Disk { path, purpose, bytes, inodes } = disk;
        let used = percent(bytes.0.saturating_sub(bytes.1), bytes.0);
        let at = path.display();
        let what = format!("{at} ({purpose}) has {} of {} left, {used} % are used", size(bytes.1), size(bytes.0));
        let fix = format!("df -h {at}; berth{flags} image prune -a frees images that nobody uses");
        if used >= FULL {
            found.push(DISK_FULL.found(what, fix));
        } else if used >= LOW {
            found.push(DISK_LOW.found(what, fix));
        }
        let used = percent(inodes.0.saturating_sub(inodes.1), inodes.0);
        if used >= FULL {
            let what = format!("{at} ({purpose}) has {} of {} inodes left, {used} % are used", inodes.1, inodes.0);
            found.push(INODES_FULL.found(what, format!("df -i {at}; du --inodes -x -d 3 {at} | sort -n | tail")));
        }
    }
    for (container, path, bytes) in facts.logs.iter().filter(|(_, _, bytes)| *bytes >= BIG_LOG) {
        let what = format!("{container}: {} has {}", path.display(), size(*bytes));
        found.push(LOG_BIG.found(what, "set the kubelet's containerLogMaxSize, or find out why it does not rotate"));
    }
}

pub(super) fn memory(facts: &Facts, found: &mut Vec<Finding>) {
    if let Some((available, total)) = facts.limits.memory
        && percent(available, total) < MEMORY
    {
        let what = format!("{} of {} are available", size(available), size(total));
        found.push(MEMORY_LOW.found(what, "ps -eo rss,pid,args --sort -rss | head; give pods memory limits"));
    }
    let strict = facts.kubelets.iter().find(|k| k.setting("failSwapOn") != "false");
    if let (Some(swap), Some(kubelet)) = (facts.limits.swap.filter(|s| *s > 0), strict) {
        let what = format!("{} of swap are on, and the kubelet (process {}) has failSwapOn", size(swap), kubelet.pid);
        found.push(SWAP_ON.found(
            what,
            "swapoff -a, or failSwapOn: false with memorySwap.swapBehavior in the kubelet's configuration",
        ));
    }
}

pub(super) fn pids(facts: &Facts, found: &mut Vec<Finding>) {
    for (group, used, limit) in &facts.cgroups.pids {
        if percent(*used, *limit) >= SOON {
            let what = format!("{} has {used} of {limit} processes", group.display());
            let fix = format!(
                "cat {}/pids.events; raise the limit of the pod or the slice (podPidsLimit, TasksMax)",
                group.display()
            );
            found.push(PIDS_GROUP.found(what, fix));
        }
    }
    if let Some((used, limit)) = facts.limits.threads
        && percent(used, limit) >= SOON
    {
        let what = format!("{used} threads run, the kernel allows {limit}");
        found.push(PID_MAX.found(
            what,
            "sysctl -w kernel.pid_max=4194304 kernel.threads-max=4194304; ps -eo nlwp,pid,args --sort -nlwp | head",
        ));
    }
}

pub(super) fn files(facts: &Facts, found: &mut Vec<Finding>) {
    let soon = |pair: &Option<(u64, u64)>| pair.filter(|(used, limit)| percent(*used, *limit) >= SOON);
    if let Some((used, limit)) = soon(&facts.limits.files) {
        let what = format!("{used} files are open, fs.file-max is {limit}");
        found.push(FILES_LOW.found(what, format!("sysctl -w fs.file-max={}", limit.saturating_mul(4))));
    }
    if let Some((used, limit)) = soon(&facts.daemon.files) {
        let what = format!("the daemon has {used} open descriptors, its limit is {limit}");
        found.push(DAEMON_FILES.found(what, "LimitNOFILE=infinity in the daemon's unit, then restart it"));
    }
    if let Some((used, limit)) = soon(&facts.limits.inotify) {
        let what = format!("root has {used} inotify instances, fs.inotify.max_user_instances is {limit}");
        found.push(INOTIFY_LOW.found(what, "sysctl -w fs.inotify.max_user_instances=8192"));
    }
}

pub(super) fn addresses(facts: &Facts, found: &mut Vec<Finding>) {
    let pools = facts.daemon.told.as_ref().map(|t| t.address_pools.as_slice()).unwrap_or_default();
    let subnet = facts.daemon.info.as_ref().map_or("", |i| i.subnet.as_str());
    for pool in pools {
        let what = format!("{} of {} {} addresses are in use (subnet {subnet})", pool.used, pool.size, pool.family);
        let fix = format!("remove pods (berth{} pods), or set a larger spec.network.subnet", facts.daemon.flags);
        if pool.used >= pool.size {
            found.push(ADDRESSES_OUT.found(what, fix));
        } else if percent(pool.used, pool.size) >= SOON {
            found.push(ADDRESSES_LOW.found(what, fix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Check;
    use super::*;
    use crate::doctor::facts::{Cgroups, Kubelet, Limits};
    use berth_proto::node::{AddressPool, DiagnoseResponse};

    fn ids(check: Check, facts: &Facts) -> Vec<&'static str> {
        let mut found = Vec::new();
        check(facts, &mut found);
        found.iter().map(|f| f.id).collect()
    }

    #[test]
    fn disks_fill_up() {
        let with = |free: u64, inodes: u64| Facts {
            disks: vec![Disk { path: "/x".into(), purpose: "images", bytes: (1000, free), inodes: (100, inodes) }],
            ..Facts::default()
        };
        assert_eq!(ids(disk, &with(500, 50)), [""; 0]);
        assert_eq!(ids(disk, &with(120, 50)), ["disk-low"]);
        assert_eq!(ids(disk, &with(10, 1)), ["disk-full", "inodes-full"]);
        let facts = Facts { logs: vec![("a/b/c".into(), "/l".into(), BIG_LOG)], ..Facts::default() };
        assert_eq!(ids(disk, &facts), ["log-big"]);
        // A file system without inodes of its own (btrfs) has none to run out of.
        let mut facts = with(500, 0);
        facts.disks[0].inodes = (0, 0);
        assert_eq!(ids(disk, &facts), [""; 0]);
    }

    #[test]
    fn memory_and_swap() {
        let mut facts = Facts {
            limits: Limits { memory: Some((40, 1000)), swap: Some(1), ..Limits::default() },
            ..Facts::default()
        };
        assert_eq!(ids(memory, &facts), ["memory-low"], "swap matters to a kubelet alone");
        facts.limits.memory = Some((500, 1000));
        facts.kubelets = vec![Kubelet::default()];
        assert_eq!(ids(memory, &facts), ["swap-on"]);
        facts.kubelets[0].settings.insert("failSwapOn".into(), "false".into());
        assert_eq!(ids(memory, &facts), [""; 0]);
    }

    #[test]
    fn processes_and_files() {
        let limits =
            Limits { threads: Some((95, 100)), files: Some((95, 100)), inotify: Some((120, 128)), ..Limits::default() };
        let mut facts = Facts { limits, ..Facts::default() };
        facts.cgroups = Cgroups { pids: vec![("/g".into(), 9, 10), ("/h".into(), 1, 10)], ..Cgroups::default() };
        facts.daemon.files = Some((1000, 1024));
        assert_eq!(ids(pids, &facts), ["pids-limit", "pid-max"]);
        assert_eq!(ids(files, &facts), ["files-low", "daemon-files", "inotify-low"]);
        assert_eq!(ids(files, &Facts::default()), [""; 0]);
    }

    #[test]
    fn addresses_run_out() {
        let with = |used| {
            let mut facts = Facts::default();
            let pool = AddressPool { family: "ipv4".into(), size: 100, used };
            facts.daemon.told = Some(DiagnoseResponse { address_pools: vec![pool], ..Default::default() });
            facts
        };
        assert_eq!(ids(addresses, &with(89)), [""; 0]);
        assert_eq!(ids(addresses, &with(95)), ["addresses-low"]);
        assert_eq!(ids(addresses, &with(100)), ["addresses-exhausted"]);
    }
}
