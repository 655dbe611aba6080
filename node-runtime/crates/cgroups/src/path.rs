//! Names and places of groups: from what the kubelet sends to a directory below the root of each hierarchy. Pure.
use crate::Driver;
use berth_model::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest directory name (NAME_MAX) and longest path that we take.
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 2048;

/// A group. The same relative directory in every hierarchy; with systemd also the unit that stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CgroupPath {
    dir: String,
    unit: Option<Unit>,
}

/// A transient scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) slice: String,
    pub(crate) scope: String,
}

impl CgroupPath {
    /// The directory below the root of a hierarchy, without a leading slash.
    pub fn dir(&self) -> &str {
        &self.dir
    }

    /// The name of the systemd scope, with the systemd driver.
    pub fn scope(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.scope.as_str())
    }

    /// The group above (the pod's), for readings. `None` above the first level.
    pub fn parent(&self) -> Option<CgroupPath> {
        let (parent, _) = self.dir.rsplit_once('/')?;
        Some(Self { dir: parent.to_owned(), unit: None })
    }

    pub(crate) fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// A group by its directory, for groups that systemd does not know.
    pub(crate) fn plain(dir: &str) -> Result<Self> {
        let parts = components("cgroup", dir)?;
        Ok(Self { dir: parts.join("/"), unit: None })
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.dir)
    }
}

/// The group of a container, see [`crate::Cgroups::path`].
pub(crate) fn resolve(driver: Driver, parent: &str, fallback_parent: &str, name: &str) -> Result<CgroupPath> {
    let above = resolve_parent(driver, if parent.is_empty() { fallback_parent } else { parent })?;
    // A `-` would end the kubelet's way to get the id out of a scope's name, and nest a slice.
    if name.is_empty() || name.len() > 200 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Error::invalid("cgroup name", format!("{name:?} must be letters, digits and _ alone")));
    }
    let below = |leaf: &str| if above.dir.is_empty() { leaf.to_owned() } else { format!("{}/{leaf}", above.dir) };
    match driver {
        Driver::Cgroupfs => Ok(CgroupPath { dir: below(name), unit: None }),
        Driver::Systemd => {
            let scope = format!("berth-{name}.scope");
            let slice = above.dir.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or("-.slice").to_owned();
            Ok(CgroupPath { dir: below(&scope), unit: Some(Unit { slice, scope }) })
        }
    }
}

/// The group of `name` at or above a directory, if there is one.
pub(crate) fn named(driver: Driver, dir: &str, name: &str) -> Option<CgroupPath> {
    let leaf = match driver {
        Driver::Cgroupfs => name.to_owned(),
        Driver::Systemd => format!("berth-{name}.scope"),
    };
    let parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    let at = parts.iter().position(|part| *part == leaf)?;
    resolve(driver, &parts.get(..at)?.join("/"), "", name).ok()
}

/// The group that a parent stands for: its directory, see [`crate::Cgroups::parent`].
pub(crate) fn resolve_parent(driver: Driver, parent: &str) -> Result<CgroupPath> {
    let parts = components("cgroup_parent", parent)?;
    match driver {
        Driver::Cgroupfs => {
            if parts.last().is_some_and(|last| last.ends_with(".slice")) {
                return Err(Error::invalid(
                    "cgroup_parent",
                    format!(
                        "{parent:?} is a systemd slice, but this runtime uses the cgroupfs driver; give the kubelet and \
                         the runtime the same cgroup driver"
                    ),
                ));
            }
            Ok(CgroupPath { dir: parts.join("/"), unit: None })
        }
        Driver::Systemd => {
            let slice = parts.last().copied().unwrap_or("-.slice");
            let nested = expand_slice(slice)?;
            if parts.len() > 1 && parts.join("/") != nested {
                return Err(Error::invalid(
                    "cgroup_parent",
                    format!("{parent:?} is not where systemd keeps the slice {slice}, that is /{nested}"),
                ));
            }
            Ok(CgroupPath { dir: nested, unit: None })
        }
    }
}

/// The parts of a path, checked. Empty for "" and "/".
fn components<'a>(field: &str, path: &'a str) -> Result<Vec<&'a str>> {
    let bad = |problem: String| Err(Error::invalid(field, problem));
    if path.len() > MAX_PATH {
        return bad(format!("longer than {MAX_PATH} bytes"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in &parts {
        if *part == "." || *part == ".." {
            return bad(format!("{path:?} must not contain {part:?}"));
        }
        if part.len() > MAX_NAME || part.bytes().any(|b| b.is_ascii_control()) {
            return bad(format!("{path:?} has a part that is not a directory name"));
        }
    }
    Ok(parts)
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)): the directory of a slice. `-.slice` is the root.
fn expand_slice(slice: &str) -> Result<String> {
    let bad = |problem: &str| Err(Error::invalid("cgroup_parent", format!("{slice:?} {problem}")));
    let Some(stem) = slice.strip_suffix(".slice") else {
        return bad(
            "is not a systemd slice (NAME.slice), but this runtime uses the systemd driver; give the kubelet and \
                    the runtime the same cgroup driver",
        );
    };
    if stem == "-" {
        return Ok(String::new());
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.' | b'\\' | b'-');
    if stem.split('-').any(str::is_empty) || !stem.bytes().all(valid) {
        return bad("is not a valid slice name (systemd.slice(5))");
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let parts: Vec<String> = ends.map(|end| format!("{}.slice", &stem[..end])).collect();
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f00aa";

    #[test]
    fn cgroupfs_puts_the_bare_id_into_the_parent() {
        let path = |parent| resolve(Driver::Cgroupfs, parent, "berth-1a2b", ID).map(|p| p.to_string());
        assert_eq!(path("/kubepods/burstable/pod12").unwrap(), "/kubepods/burstable/pod12/0f00aa");
        assert_eq!(path("kubepods//pod12/").unwrap(), "/kubepods/pod12/0f00aa");
        assert_eq!(path("").unwrap(), "/berth-1a2b/0f00aa");
        let long = "a/".repeat(2000);
        for bad in ["/a/../b", "..", "/a/./b", "/a\nb", "/kubepods.slice/x.slice", &long] {
            assert!(path(bad).is_err(), "{bad:?} was taken for a parent");
        }
        let message = path("/test.slice").unwrap_err();
        assert!(message.message().contains("same cgroup driver"), "{message}");
    }

    #[test]
    fn systemd_expands_the_slice() {
        let path = |parent| resolve(Driver::Systemd, parent, "berth-1a2b.slice", ID);
        let nested = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        let full = path(nested).unwrap();
        assert_eq!(full.to_string(), format!("{nested}/berth-0f00aa.scope"));
        assert_eq!(full.unit().unwrap().slice, "kubepods-burstable-pod1_2.slice");
        assert_eq!(path("kubepods-burstable-pod1_2.slice").unwrap(), full);
        assert_eq!(path("").unwrap().to_string(), "/berth.slice/berth-1a2b.slice/berth-0f00aa.scope");
        assert_eq!(path("-.slice").unwrap().to_string(), "/berth-0f00aa.scope");
        assert_eq!(path("/test.slice").unwrap().parent().unwrap().dir(), "test.slice");
        assert_eq!(resolve_parent(Driver::Systemd, nested).unwrap(), full.parent().unwrap());
        for bad in
            ["/kubepods/pod1", "/x.slice/kubepods-a.slice", "-a.slice", "a-.slice", "a--b.slice", ".slice", "a b.slice"]
        {
            assert!(path(bad).is_err(), "{bad:?} was taken for a slice");
        }
    }

    #[test]
    fn a_group_is_found_by_a_process_below_it() {
        for (driver, parent) in [(Driver::Cgroupfs, "/kubepods/pod12"), (Driver::Systemd, "kubepods-pod12.slice")] {
            for parent in [parent, ""] {
                let path = resolve(driver, parent, "", ID).unwrap();
                assert_eq!(named(driver, &path.to_string(), ID), Some(path.clone()));
                assert_eq!(named(driver, &format!("{path}/inner/0f00aa"), ID), Some(path.clone()));
                assert_eq!(named(driver, &path.to_string(), "0f00ab"), None);
            }
        }
        assert_eq!(named(Driver::Cgroupfs, "/", ID), None);
    }

    #[test]
    fn names_are_ids() {
        for bad in ["", "a-b", "a/b", "..", "a.scope", "é"] {
            assert!(resolve(Driver::Cgroupfs, "/p", "", bad).is_err(), "{bad:?} was taken for a name");
        }
    }
}
