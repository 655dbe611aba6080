//! Mounts of every mount namespace that a process lives in, as /proc/PID/mountinfo shows them.
use crate::processes::Process;
use crate::unless_gone;
use std::collections::BTreeMap;
use std::{fs, io};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the file system.
    pub device: String,
    /// What of the file system is mounted.
    pub root: String,
    /// Where.
    pub point: String,
    /// Type of the file system.
    pub kind: String,
    /// Its source.
    pub source: String,
}

/// The mounts of each mount namespace, by the namespace's name. This process's own is under the empty name too.
pub type Namespaces = BTreeMap<String, Vec<Mount>>;

/// Reads them through one process of each namespace.
pub fn read<'a>(processes: impl Iterator<Item = &'a Process>) -> io::Result<Namespaces> {
    let own = fs::read_link("/proc/self/ns/mnt")?.to_string_lossy().into_owned();
    let mounts = parse_all(&fs::read_to_string("/proc/self/mountinfo")?);
    let mut all = Namespaces::from([(own, mounts.clone()), (String::new(), mounts)]);
    for process in processes {
        let Some(name) = process.namespaces.iter().find(|n| n.starts_with("mnt:[")) else { continue };
        if !all.contains_key(name)
            && let Some(text) = unless_gone(fs::read_to_string(format!("/proc/{}/mountinfo", process.pid)))?
        {
            all.insert(name.clone(), parse_all(&text));
        }
    }
    Ok(all)
}

fn parse_all(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn parse(line: &str) -> Option<Mount> {
    let (place, system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let mut system = system.split(' ');
    Some(Mount {
        device: place.next()?.to_owned(),
        root: unescape(place.next()?),
        point: unescape(place.next()?),
        kind: system.next()?.to_owned(),
        source: unescape(system.next()?),
    })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Key and description of each; mounts that lie on each other at one place are told apart by their number.
pub fn list(namespaces: &Namespaces) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for (namespace, mounts) in namespaces.iter().filter(|(name, _)| !name.is_empty()) {
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for mount in mounts {
            let what = format!("{} ({} {} of {})", mount.point, mount.kind, mount.root, mount.source);
            let count = seen.entry(what.clone()).or_default();
            *count += 1;
            list.push((format!("{namespace} {what} {count}"), what));
        }
    }
    list
}

/// The namespace in a key of [`list`].
pub fn namespace_of(key: &str) -> &str {
    key.split(' ').next().unwrap_or_default()
}

/// Namespaces that a bind mount keeps, with where it lies.
pub fn pinned_namespaces(namespaces: &Namespaces) -> Vec<(String, String)> {
    let nsfs = |m: &&Mount| m.kind == "nsfs";
    namespaces.values().flatten().filter(nsfs).map(|m| (m.root.clone(), format!("the mount {}", m.point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_are_read() {
        let mount =
            parse(r"36 35 0:4 net:[4026532001] /run/a\040b rw,nosuid shared:7 master:1 - nsfs nsfs rw").unwrap();
        assert_eq!(
            (mount.point.as_str(), mount.root.as_str(), mount.kind.as_str()),
            ("/run/a b", "net:[4026532001]", "nsfs")
        );
        assert_eq!(parse("22 1 8:1 / / rw - ext4 /dev/sda1 rw").unwrap().source, "/dev/sda1");
        assert_eq!(parse("nonsense"), None);
        assert_eq!(unescape(r"a\134b\0"), r"a\b\0");
    }

    #[test]
    fn stacked_mounts_count_each() {
        let line = "22 1 0:9 / /x rw - tmpfs tmpfs rw\n";
        let once = Namespaces::from([("mnt:[1]".into(), parse_all(line))]);
        let twice = Namespaces::from([("mnt:[1]".into(), parse_all(&line.repeat(2)))]);
        let (once, twice) = (list(&once), list(&twice));
        assert_eq!((once.len(), twice.len()), (1, 2));
        assert_ne!(twice[0].0, twice[1].0);
        assert_eq!(namespace_of(&once[0].0), "mnt:[1]");
    }
}
