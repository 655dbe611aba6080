//! Seccomp profiles on the node's disk.
use berth_model::{Error, Result, ResultExt};
use std::io::Read;
use std::path::Path;

/// Longest profile in bytes.
const MAX_PROFILE: u64 = 1 << 20;
/// Where relative names are looked for: the kubelet's own directory.
const PROFILE_ROOT: &str = "/var/lib/kubelet/seccomp";

/// Reads a localhost profile. Errors: `InvalidArgument` for one that is no file or longer than 1 MiB.
pub fn read_localhost(path: &Path) -> Result<Vec<u8>> {
    let path = Path::new(PROFILE_ROOT).join(path);
    let name = || format!("seccomp profile {}", path.display());
    let file = std::fs::File::open(&path).map_err(|e| Error::invalid(name(), e))?;
    if !file.metadata().context(name)?.is_file() {
        return Err(Error::invalid(name(), "is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PROFILE + 1).read_to_end(&mut bytes).context(name)?;
    if bytes.len() as u64 > MAX_PROFILE {
        return Err(Error::invalid(name(), format!("is longer than {MAX_PROFILE} bytes")));
    }
    Ok(bytes)
}
