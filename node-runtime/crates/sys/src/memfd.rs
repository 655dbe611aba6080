//! Sealed memory files (memfd_create(2)): bytes that nobody can change once they are handed out.
//!
//! Owns: making and sealing. Must not: know what is in them.
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

/// Every seal: the size and the bytes are final, and so are the seals.
fn seal(file: &File) -> io::Result<()> {
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, all)?)
}

/// Makes a memory file that may (`MFD_EXEC`) or may never (`MFD_NOEXEC_SEAL`) be executed. Kernels before 6.3 know neither
/// word and answer EINVAL.
fn create(name: &str, kind: MemfdFlags) -> io::Result<File> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, base | kind) {
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(name, base)?.into()),
        other => Ok(other?.into()),
    }
}

/// A sealed, not executable memory file of these bytes, positioned at its start.
pub fn sealed(name: &str, contents: &[u8]) -> io::Result<OwnedFd> {
    let mut file = create(name, MemfdFlags::NOEXEC_SEAL)?;
    file.write_all(contents)?;
    file.rewind()?;
    seal(&file)?;
    Ok(file.into())
}

/// A sealed, executable copy of a program: what a container could otherwise write to through `/proc/PID/exe`
/// (CVE-2019-5736) cannot be changed, and all its processes share one set of pages. `PermissionDenied` where
/// `vm.memfd_noexec` is 2, with the remedy.
pub fn sealed_program(name: &str, program: &mut impl Read) -> io::Result<OwnedFd> {
    let mut file = create(name, MemfdFlags::EXEC).map_err(|e| {
        if e.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) {
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the sysctl vm.memfd_noexec is 2, which forbids executable memory files; set it to 0 or 1",
            )
        } else {
            e
        }
    })?;
    io::copy(program, &mut file)?;
    file.rewind()?;
    seal(&file)?;
    Ok(file.into())
}

/// Whether all seals are on, so that what was read from the file is what will be read again.
pub fn is_sealed(file: &impl std::os::fd::AsFd) -> bool {
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    #[test]
    fn nobody_changes_what_is_sealed() {
        let file = File::from(sealed("test", b"spec").unwrap());
        assert!(is_sealed(&file));
        let mut text = String::new();
        (&file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "spec");
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(1).is_err());
        assert!(!is_sealed(&File::open("/proc/self/exe").unwrap()));
    }

    #[test]
    fn a_program_stays_executable_and_data_does_not() {
        let program = File::from(sealed_program("test", &mut &b"#!"[..]).unwrap());
        assert_eq!(program.metadata().unwrap().permissions().mode() & 0o111, 0o111);
        let data = File::from(sealed("test", b"x").unwrap());
        // Kernels from 6.3 on clear the bits; before, only the mount decides.
        if data.metadata().unwrap().permissions().mode() & 0o111 == 0 {
            assert!(data.set_permissions(std::fs::Permissions::from_mode(0o700)).is_err());
        }
    }
}
