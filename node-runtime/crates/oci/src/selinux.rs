//! SELinux on the node: the policy's contexts for containers, whether the kernel takes a label, and labels of files.
//!
//! Owns: reading the policy's files, asking the kernel, relabelling. Must not: decide labels (`spec::selinux`), or follow a link
//! of what it relabels: containers may share those directories.
use crate::spec::{ContainerContexts, Context};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, XattrFlags, lsetxattr, openat};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

const CONFIG: &str = "/etc/selinux/config";
/// The kernel's check of a context (selinuxfs, `sel_write_context`).
const CHECK: &str = "/sys/fs/selinux/context";
const XATTR: &str = "security.selinux";
/// Directories that are the node's own: what is below them is not for a pod to relabel (as go-selinux refuses).
const NODE_OWN: [&str; 15] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr",
    "/var",
];
/// Deepest directory that is relabelled.
const MAX_DEPTH: usize = 256;

/// SELinux is on: a policy is loaded (selinuxfs is mounted by whoever loads it).
pub(crate) fn enabled() -> bool {
    std::fs::read(CHECK.replace("context", "policyvers")).is_ok() && Path::new("/sys/fs/selinux/status").exists()
}

/// What the policy that the node is configured for says of containers.
pub(crate) fn contexts() -> Option<ContainerContexts> {
    let config = std::fs::read_to_string(CONFIG).ok()?;
    let policy = value(&config, "SELINUXTYPE")?;
    if policy.contains('/') {
        return None;
    }
    let text = std::fs::read_to_string(format!("/etc/selinux/{policy}/contexts/lxc_contexts")).ok()?;
    Some(ContainerContexts {
        process: Context::parse(&value(&text, "process")?)?,
        file: Context::parse(&value(&text, "file")?)?,
    })
}

/// `name = "value"` with or without quotes and blanks.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Asks the kernel whether the policy in force knows this context. Errors: `InvalidArgument` with the context.
pub fn check(context: &str) -> Result<()> {
    std::fs::write(CHECK, context).map_err(|e| {
        let problem = format!("{context:?} is no label of this node's SELinux policy ({e})");
        Error::invalid("linux.security_context.selinux_options", problem)
    })
}

/// Labels a file or directory of our own, which nobody else can change meanwhile.
pub fn label(path: &Path, context: &str) -> Result<()> {
    set(path, context).context(|| format!("SELinux label of {}", path.display()))
}

/// Labels a volume with all that is in it. A file system that has no labels is left as it is: a mount option rules there.
/// Errors: `InvalidArgument` for a directory of the node's own.
pub fn relabel(path: &Path, context: &str) -> Result<()> {
    let real = path.canonicalize().context(|| path.display())?;
    if NODE_OWN.iter().any(|own| real == Path::new(own)) {
        let problem = format!("{} is a directory of the node itself and is not relabelled", real.display());
        return Err(Error::new(ErrorKind::InvalidArgument, problem));
    }
    set(&real, context).context(|| format!("SELinux label of {}", real.display()))?;
    if real.is_dir() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&real, flags, Mode::empty()).map_err(std::io::Error::from);
        below(dir.context(|| real.display())?, context, 0)
            .context(|| format!("SELinux labels below {}", real.display()))?;
    }
    Ok(())
}

fn below(dir: OwnedFd, context: &str, depth: usize) -> std::io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(std::io::Error::other("directories are nested too deeply"));
    }
    // Names are looked up from the open directory, and links are labelled, not followed.
    let names: Vec<_> = Dir::read_from(&dir)?.collect::<Result<_, _>>()?;
    for entry in names {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let file = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(text(name));
        match set(&file, context) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?,
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        if is_dir {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            below(openat(&dir, name, flags, Mode::empty())?, context, depth + 1)?;
        }
    }
    Ok(())
}

fn text(name: &CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}

fn set(path: &Path, context: &str) -> std::io::Result<()> {
    match lsetxattr(path, XATTR, context.as_bytes(), XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_and_without_quotes() {
        let text = "# process = \"no\"\nprocess = \"u:r:t:s0\"\nSELINUXTYPE=default\n";
        assert_eq!(value(text, "process").as_deref(), Some("u:r:t:s0"));
        assert_eq!(value(text, "SELINUXTYPE").as_deref(), Some("default"));
        assert_eq!(value(text, "file"), None);
    }

    #[test]
    fn the_nodes_own_directories_are_left_alone() {
        assert_eq!(relabel(Path::new("/etc"), "a:b:c").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
