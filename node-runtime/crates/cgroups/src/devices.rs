//! Device rules: what a container may do with which device, on v1 by `devices.*`, on v2 by a program.
use crate::files::{Group, failed};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsFd;

/// Character or block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// Operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make a node.
    pub mknod: bool,
}

impl DeviceAccess {
    /// `rwm`.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };

    /// Parses some of `rwm`. Errors: `InvalidArgument` for other letters or none.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > 3 || !text.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(Error::invalid("device permissions", format!("{text:?} is not some of rwm")));
        }
        Ok(Self { read: text.contains('r'), write: text.contains('w'), mknod: text.contains('m') })
    }

    fn or(self, other: Self) -> Self {
        Self { read: self.read || other.read, write: self.write || other.write, mknod: self.mknod || other.mknod }
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Allows operations on the devices it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Kind.
    pub kind: DeviceKind,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
}

impl DeviceRule {
    fn key(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.kind == DeviceKind::Char { 'c' } else { 'b' };
        format!("{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// Everything, or nothing but what the rules allow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DevicePolicy {
    /// All devices (privileged containers).
    pub allow_all: bool,
    /// What is allowed otherwise.
    pub rules: Vec<DeviceRule>,
}

impl DevicePolicy {
    /// Every device.
    pub fn all() -> Self {
        Self { allow_all: true, rules: Vec::new() }
    }

    /// What every container gets, as with runc and containerd: the standard nodes, terminals, tun (kept for compatibility), and
    /// making any node without opening it.
    pub fn standard() -> Self {
        let any = |kind| DeviceRule {
            kind,
            major: None,
            minor: None,
            access: DeviceAccess { mknod: true, ..DeviceAccess::default() },
        };
        // null zero full random urandom, tty console ptmx, tun; pts.
        let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200)];
        let mut rules = vec![any(DeviceKind::Char), any(DeviceKind::Block)];
        rules.extend(nodes.map(|(major, minor)| DeviceRule {
            kind: DeviceKind::Char,
            major: Some(major),
            minor: Some(minor),
            access: DeviceAccess::ALL,
        }));
        rules.push(DeviceRule { kind: DeviceKind::Char, major: Some(136), minor: None, access: DeviceAccess::ALL });
        Self { allow_all: false, rules }
    }

    /// Rules of one device merged, in the notation of v1's files.
    fn entries(&self) -> BTreeMap<String, DeviceAccess> {
        let mut entries = BTreeMap::new();
        for rule in &self.rules {
            let access: &mut DeviceAccess = entries.entry(rule.key()).or_default();
            *access = access.or(rule.access);
        }
        entries
    }

    /// v1: writes the rules to a new group and reads back what the kernel has.
    pub(crate) fn write_v1(&self, group: &Group) -> Result<()> {
        let put = |file: &str, value: &str| {
            group
                .write(file, value)
                .map_err(|e| failed(format!("device rule {value:?} ({file} of {})", group.path().display()), e))
        };
        if self.allow_all {
            put("devices.allow", "a")?;
        } else {
            put("devices.deny", "a")?;
            for (device, access) in self.entries() {
                put("devices.allow", &format!("{device} {access}"))?;
            }
        }
        let list = group.read("devices.list").context(|| format!("devices.list of {}", group.path().display()))?;
        if self.matches(&list) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("device rules of {} are not what was written: the kernel has {list:?}", group.path().display()),
        ))
    }

    /// Whether `devices.list` says what this policy says.
    fn matches(&self, list: &str) -> bool {
        let mut lines: Vec<&str> = list.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let mut wanted: Vec<String> = if self.allow_all {
            vec!["a *:* rwm".to_owned()]
        } else {
            self.entries().iter().map(|(device, access)| format!("{device} {access}")).collect()
        };
        lines.sort_unstable();
        wanted.sort_unstable();
        lines == wanted
    }

    /// v2: loads and attaches the program, and checks that the group has one.
    pub(crate) fn attach_v2(&self, group: &Group) -> Result<()> {
        if self.allow_all {
            return Ok(());
        }
        let context = |step: &str| format!("device rules of {}: {step}", group.path().display());
        let program = berth_sys::bpf::load_device_program(&crate::device_program(self)?)
            .context(|| context("the kernel did not load the program (CONFIG_CGROUP_BPF, CAP_BPF)"))?;
        berth_sys::bpf::attach_device_program(group.fd(), program.as_fd()).context(|| context("attach"))?;
        let attached = berth_sys::bpf::device_programs(group.fd()).context(|| context("query"))?;
        if attached.is_empty() {
            return Err(Error::new(ErrorKind::PermissionDenied, context("no program is attached after attaching one")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_some_of_rwm() {
        assert_eq!(DeviceAccess::parse("mr").unwrap().to_string(), "rm");
        for bad in ["", "x", "rwx", "rwmr"] {
            assert!(DeviceAccess::parse(bad).is_err(), "{bad:?} was taken for permissions");
        }
    }

    #[test]
    fn the_kernels_list_is_compared_whole() {
        let policy = DevicePolicy::standard();
        let list: String = policy.entries().iter().rev().map(|(d, a)| format!("{d} {a}\n")).collect();
        assert!(list.contains("c 136:* rwm\n") && list.contains("b *:* m\n") && list.contains("c 1:3 rwm\n"));
        assert!(policy.matches(&list));
        assert!(!policy.matches(&format!("{list}c 1:1 r\n")), "one rule more");
        assert!(!policy.matches(&list.replace("c 1:3 rwm\n", "")), "one rule less");
        assert!(!policy.matches("a *:* rwm\n"));
        assert!(DevicePolicy::all().matches("a *:* rwm\n"));
    }
}
