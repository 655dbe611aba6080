//! User and group ids of a container and of the node (user_namespaces(7)).
use anyhow::{Context, Result};

/// How ids inside and outside belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// `/proc/PID/uid_map`: first inside, first outside, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range(u32, u32, u32);

impl Ids {
    /// Those of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
            Ok::<_, anyhow::Error>(parse(&text))
        };
        Ok(Self { users: read("uid_map")?, groups: read("gid_map")? })
    }

    /// The node's ids of ids inside; those that the container does not have are its root's.
    pub fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let map = |ranges: &[Range], id| out(ranges, id).or_else(|| out(ranges, 0)).unwrap_or(id);
        (map(&self.users, uid), map(&self.groups, gid))
    }

    /// The ids inside of ids of the node; those that the container does not have are nobody's.
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        const NOBODY: u32 = 65_534;
        let map = |ranges: &[Range], id: u32| {
            let found = ranges.iter().find(|r| id >= r.1 && id - r.1 < r.2);
            found.map_or(NOBODY, |r| r.0 + (id - r.1))
        };
        (map(&self.users, uid), map(&self.groups, gid))
    }
}

fn out(ranges: &[Range], id: u32) -> Option<u32> {
    ranges.iter().find(|r| id >= r.0 && id - r.0 < r.2).map(|r| r.1 + (id - r.0))
}

fn parse(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|n| n.parse().ok());
        Some(Range(numbers.next()??, numbers.next()??, numbers.next()??))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_both_ways() {
        let mapped = Ids { users: parse("         0     100000      65536\n"), groups: parse("0 200000 10\n10 7 1") };
        assert_eq!(mapped.outside(5, 10), (100_005, 7));
        assert_eq!(mapped.outside(70_000, 99), (100_000, 200_000), "what it does not have is its root's");
        assert_eq!(mapped.inside(100_005, 7), (5, 10));
        assert_eq!(mapped.inside(0, 0), (65_534, 65_534));
        let plain = Ids { users: parse("0 0 4294967295"), groups: parse("0 0 4294967295") };
        assert_eq!((plain.outside(3, 4), plain.inside(3, 4)), ((3, 4), (3, 4)));
    }
}
