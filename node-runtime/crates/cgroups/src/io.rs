//! Block I/O of a group, by device: io.stat on v2, blkio.throttle.* on v1 (cgroup-v1/blkio-controller.rst).
//!
//! Owns: reading those files. Must not: fail, a missing controller gives `None`.
use crate::usage::{Pressure, pressure};
use crate::view::View;
use std::collections::BTreeMap;

/// I/O of all devices together, and of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
    /// Devices that the group has used, by number.
    pub devices: Vec<DeviceIo>,
    /// Pressure.
    pub pressure: Option<Pressure>,
}

/// I/O of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...` per device.
pub(crate) fn io_v2(view: &View) -> Option<IoUsage> {
    let stat = view.read("io", "io.stat")?;
    let mut devices = BTreeMap::new();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let Some(entry) = words.next().and_then(|number| device(&mut devices, number)) else { continue };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or_default();
            match name {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "rios" => entry.reads = value,
                "wios" => entry.writes = value,
                _ => {}
            }
        }
    }
    Some(total(devices, pressure(view, "io.pressure")))
}

/// `MAJOR:MINOR Read N`, `MAJOR:MINOR Write N`, ... per device and kind; the recursive files where the kernel has them.
pub(crate) fn io_v1(view: &View) -> Option<IoUsage> {
    let read = |name: &str| {
        view.read("blkio", &format!("blkio.throttle.{name}_recursive"))
            .or_else(|| view.read("blkio", &format!("blkio.throttle.{name}")))
    };
    let mut devices = BTreeMap::new();
    each(&read("io_service_bytes")?, &mut devices, |d| (&mut d.read_bytes, &mut d.write_bytes));
    each(&read("io_serviced").unwrap_or_default(), &mut devices, |d| (&mut d.reads, &mut d.writes));
    Some(total(devices, pressure(view, "io.pressure")))
}

fn each(
    text: &str,
    devices: &mut BTreeMap<(u32, u32), DeviceIo>,
    fields: impl Fn(&mut DeviceIo) -> (&mut u64, &mut u64),
) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(number), Some(kind), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        let Some(entry) = device(devices, number) else { continue };
        let (read, write) = fields(entry);
        let value = value.parse().unwrap_or_default();
        match kind {
            "Read" => *read = value,
            "Write" => *write = value,
            _ => {}
        }
    }
}

fn device<'a>(devices: &'a mut BTreeMap<(u32, u32), DeviceIo>, number: &str) -> Option<&'a mut DeviceIo> {
    let (major, minor) = number.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    Some(devices.entry((major, minor)).or_insert_with(|| DeviceIo { major, minor, ..DeviceIo::default() }))
}

fn total(devices: BTreeMap<(u32, u32), DeviceIo>, pressure: Option<Pressure>) -> IoUsage {
    let devices: Vec<DeviceIo> = devices.into_values().collect();
    let sum = |field: fn(&DeviceIo) -> u64| devices.iter().map(field).fold(0, u64::saturating_add);
    IoUsage {
        read_bytes: sum(|d| d.read_bytes),
        write_bytes: sum(|d| d.write_bytes),
        reads: sum(|d| d.reads),
        writes: sum(|d| d.writes),
        pressure,
        devices,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use crate::files::Tree;

    #[test]
    fn v1_block_io_is_summed_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        let text = "8:0 Read 100\n8:0 Write 7\n8:0 Total 107\n8:16 Read 1\nTotal 108\n";
        std::fs::write(dir.path().join("blkio.throttle.io_service_bytes"), text).unwrap();
        let group = Tree::open(dir.path()).unwrap().group("").unwrap();
        let view = View { layout: Layout::V1, v1: vec![(vec!["blkio".into()], group)], v2: None };
        let io = io_v1(&view).unwrap();
        assert_eq!((io.read_bytes, io.write_bytes), (101, 7));
        assert_eq!(io.devices.iter().map(|d| d.minor).collect::<Vec<_>>(), [0, 16]);
    }
}
