//! Whiteouts: the archive's spelling (OCI image spec, `layer.md`) into overlayfs' own (kernel `overlayfs.rst`).
//!
//! Owns: what a `.wh.` name means, and how a deleted or opaque directory looks on disk. Must not: resolve paths.
use super::path::io;
use crate::refused;
use berth_model::Result;
use rustix::fs::{self, FileType, Mode, Stat, XattrFlags};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// Itself.
    Plain,
    /// Hides this name of the layers below.
    Whiteout(&'a [u8]),
    /// Hides all that the layers below have in the directory.
    Opaque,
    /// Bookkeeping of aufs, which nobody needs.
    Ignored,
}

/// Reads a name. Errors: `FailedPrecondition` for a whiteout of no name or of `.` or `..`.
pub fn classify(name: &[u8]) -> Result<Name<'_>> {
    if name == OPAQUE {
        return Ok(Name::Opaque);
    }
    if name.starts_with(META_PREFIX) {
        return Ok(Name::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Name::Plain),
        Some(b"" | b"." | b"..") => {
            Err(refused(format!("layer path {}", super::path::shown(name)), "is a whiteout of nothing"))
        }
        Some(hidden) => Ok(Name::Whiteout(hidden)),
    }
}

/// Makes overlayfs' whiteout: a character device 0:0. Since Linux 5.8 this needs no privilege.
pub fn make_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Whether it is one.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Name of the attribute of opaque directories. Without root there is only the `user.` spelling, which a mount with `userxattr`
/// understands.
fn opaque_name() -> &'static str {
    if rustix::process::geteuid().is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

/// Whether a directory hides what the layers below have in it.
pub fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0; 2];
    match fs::fgetxattr(directory, opaque_name(), &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        // No such attribute, or one that is not ours.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(io(e)),
    }
}

/// Makes a directory opaque.
pub fn make_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    let name = opaque_name();
    fs::fsetxattr(directory, name, b"y", XattrFlags::empty()).map_err(|e| io(e).context(format!("cannot set {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let cases: [(&[u8], Name<'_>); 5] = [
            (b"file", Name::Plain),
            (b".wh.file", Name::Whiteout(b"file")),
            (b".wh..hidden", Name::Whiteout(b".hidden")),
            (b".wh..wh..opq", Name::Opaque),
            (b".wh..wh.plnk", Name::Ignored),
        ];
        for (name, meaning) in cases {
            assert_eq!(classify(name).unwrap(), meaning);
        }
        for bad in [b".wh.".as_slice(), b".wh..", b".wh..."] {
            assert!(classify(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
