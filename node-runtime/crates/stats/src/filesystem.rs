//! The file system that holds writable layers, and the names of block devices (statfs(2), proc_pid_mountinfo(5), sysfs).
//!
//! Owns: those readings. Must not: walk directories.
use berth_model::{Error, Result, ResultExt};
use std::path::Path;

/// A file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Its device as the mount table names it, such as `/dev/vda1`.
    pub device: String,
    /// Size in bytes.
    pub capacity: u64,
    /// Inodes in all; zero where the file system makes them as it needs them.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// The file system that `path` lies on. Errors: `Internal` when the path cannot be looked at.
pub fn file_system(path: &Path) -> Result<FileSystem> {
    let stat =
        rustix::fs::statvfs(path).map_err(|e| Error::from(std::io::Error::from(e))).context(|| path.display())?;
    let entry = rustix::fs::stat(path).map_err(|e| Error::from(std::io::Error::from(e))).context(|| path.display())?;
    let (major, minor) = (rustix::fs::major(entry.st_dev), rustix::fs::minor(entry.st_dev));
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(FileSystem {
        device: mounted_device(&table, major, minor).unwrap_or_else(|| device_name(major, minor)),
        capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS... - TYPE SOURCE OPTIONS`
fn mounted_device(table: &str, major: u32, minor: u32) -> Option<String> {
    let number = format!("{major}:{minor}");
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let source = line.split_once(" - ")?.1.split(' ').nth(1)?;
    Some(source.to_owned())
}

/// `/dev/NAME` of a block device, or its numbers where the kernel knows no name.
pub fn device_name(major: u32, minor: u32) -> String {
    let event = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_names_the_device() {
        let table = "22 1 0:20 / /proc rw shared:5 - proc proc rw\n29 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n";
        assert_eq!(mounted_device(table, 254, 1).as_deref(), Some("/dev/vda1"));
        assert_eq!(mounted_device(table, 254, 2), None);
        assert_eq!(device_name(9999, 1), "9999:1");
    }

    #[test]
    fn a_directory_has_a_file_system() {
        let read = file_system(Path::new("/")).unwrap();
        assert!(read.capacity > 0 && !read.device.is_empty(), "{read:?}");
        assert!(file_system(Path::new("/does/not/exist")).is_err());
    }
}
