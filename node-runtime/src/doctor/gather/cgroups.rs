//! Control groups: layout, controllers, and the process limits from the pods' groups upwards.
use super::number;
use crate::doctor::facts::Cgroups;
use crate::node_files::text;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

pub(super) fn gather(groups: &[String]) -> Cgroups {
    let unified = Path::new(ROOT).join("cgroup.controllers").exists();
    let layout = if unified {
        "v2"
    } else if Path::new(ROOT).join("unified/cgroup.controllers").exists() {
        "hybrid"
    } else if Path::new(ROOT).is_dir() {
        "v1"
    } else {
        ""
    };
    let controllers = if unified {
        text(Path::new(ROOT).join("cgroup.controllers"))
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    } else {
        v1_controllers()
    };
    let base = if unified { PathBuf::from(ROOT) } else { Path::new(ROOT).join("pids") };
    Cgroups { layout, controllers, pids: pids(&base, groups) }
}

/// Controllers with a mount of their own, as /proc/cgroups has them enabled.
fn v1_controllers() -> Vec<String> {
    let table = text("/proc/cgroups").unwrap_or_default();
    let rows = table.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let mounted = rows.filter(|r| r.len() == 4 && r[1] != "0" && r[3] == "1");
    mounted.map(|r| r[0].to_owned()).collect()
}

/// Groups with a process limit, from each of these up to the root, and those that this process is in.
fn pids(base: &Path, groups: &[String]) -> Vec<(PathBuf, u64, u64)> {
    let mut all: BTreeSet<PathBuf> = BTreeSet::new();
    let own = text("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().filter_map(|l| {
        let mut parts = l.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        (controllers.is_empty() || controllers.split(',').any(|c| c == "pids")).then(|| path.to_owned())
    });
    for group in groups.iter().cloned().chain(own) {
        let mut dir = base.join(group.trim_start_matches('/'));
        while dir.starts_with(base) && dir != base {
            all.insert(dir.clone());
            if !dir.pop() {
                break;
            }
        }
    }
    let limited = all.into_iter().filter_map(|dir| {
        let limit = number(dir.join("pids.max"))?;
        Some((dir.clone(), number(dir.join("pids.current"))?, limit))
    });
    limited.collect()
}
