//! What `berth run` reads from the node, or draws, where a kubelet would know it.
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// Most that is read of a file.
const MAX_FILE: u64 = 1 << 20;
/// Ids of one user namespace.
const RANGE: u32 = 65_536;
/// First and last block of ids that are given: far above what a kubelet starts with, below 2^31.
const BLOCKS: std::ops::Range<u32> = 0x4000..0x7fff;

fn text(path: &str) -> Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(MAX_FILE).read_to_string(&mut text));
    read.with_context(|| path.to_owned())?;
    Ok(text)
}

/// A random uid for a pod (UUID version 4).
pub fn new_uid() -> Result<String> {
    Ok(text("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// The node's resolv.conf; empty where there is none.
pub fn resolv_conf() -> Result<String> {
    const PATH: &str = "/etc/resolv.conf";
    if Path::new(PATH).exists() { text(PATH) } else { Ok(String::new()) }
}

/// The node's memory in bytes.
pub fn memory() -> Result<i64> {
    let info = text("/proc/meminfo")?;
    let total = info.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|t| t.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok());
    kibibytes.map(|k| k.saturating_mul(1024)).context("/proc/meminfo has no MemTotal")
}

/// Thermal throttling files of this node's CPUs, which tell neighbours about each other.
pub fn thermal_paths() -> Vec<String> {
    let Ok(cpus) = std::fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let paths = cpus.filter_map(|entry| Some(entry.ok()?.path().join("thermal_throttle"))).filter(|p| p.is_dir());
    let mut paths: Vec<String> = paths.map(|p| p.to_string_lossy().into_owned()).collect();
    paths.sort();
    paths
}

/// First id of a free range.
pub fn free_user_ids(used: &BTreeSet<u32>) -> Result<u32> {
    let uid = new_uid()?;
    let random = u32::from_str_radix(&uid[..8], 16).context("random number")?;
    match free_block(used, random) {
        Some(first) => Ok(first),
        None => bail!("no range of user ids is free: {} pods have one", used.len()),
    }
}

/// Looks from a random place on, so that two daemons seldom meet.
fn free_block(used: &BTreeSet<u32>, random: u32) -> Option<u32> {
    let count = BLOCKS.end - BLOCKS.start;
    let blocks = (0..count).map(|i| BLOCKS.start + (random % count + i) % count);
    blocks.map(|block| block * RANGE).find(|first| !used.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_tells_what_is_needed() {
        let uid = new_uid().unwrap();
        assert_eq!((uid.len(), uid.split('-').count()), (36, 5), "{uid}");
        assert_ne!(uid, new_uid().unwrap());
        assert!(memory().unwrap() > 1 << 20);
        assert!(thermal_paths().iter().all(|p| p.starts_with("/sys/devices/system/cpu/cpu")));
    }

    #[test]
    fn ranges_are_not_given_twice() {
        let mut used = BTreeSet::new();
        let first = free_block(&used, 7).unwrap();
        used.insert(first);
        assert_eq!(free_block(&used, 7).unwrap(), first + RANGE);
        let last = free_block(&BTreeSet::new(), BLOCKS.end - BLOCKS.start - 1).unwrap();
        assert!(last.checked_add(RANGE).is_some_and(|end| end <= 1 << 31));
        assert_eq!(free_block(&BTreeSet::from([last]), BLOCKS.end - BLOCKS.start - 1), Some(BLOCKS.start * RANGE));
        used.extend(BLOCKS.map(|b| b * RANGE));
        assert_eq!(free_block(&used, 7), None);
    }
}
