//! Where `berth run` puts a pod's logs and `emptyDir` volumes: below the daemon's own directory, by names that lead back to the
//! pod, so that `berth rm` finds them. A kubelet's pods have nothing here.
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The two directories.
pub struct Places {
    logs: PathBuf,
    empty_dirs: PathBuf,
}

impl Places {
    /// Of this daemon.
    pub fn new(layout: &Layout) -> Self {
        Self { logs: layout.lib.join("pods-logs"), empty_dirs: layout.lib.join("emptydir") }
    }

    /// A pod's log directory, named as the kubelet names its own.
    pub fn log_directory(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }

    /// Whether a log lies here, so that its pod is one of `berth run`.
    pub fn owns_log(&self, log: &str) -> bool {
        Path::new(log).starts_with(&self.logs)
    }

    /// Directory of a pod's `emptyDir` volumes.
    pub fn empty_dirs(&self, uid: &str) -> PathBuf {
        self.empty_dirs.join(uid)
    }

    /// Makes the directory of a volume: for everybody, as a kubelet makes it.
    pub fn make_empty_dir(&self, uid: &str, volume: &str) -> Result<()> {
        let pod = self.empty_dirs(uid);
        let made = DirBuilder::new().recursive(true).mode(0o711).create(&pod);
        made.with_context(|| format!("directory {}", pod.display()))?;
        let path = pod.join(volume);
        std::fs::create_dir(&path).with_context(|| format!("emptyDir {}", path.display()))?;
        // Not at creation, where the umask would take bits away.
        let open = std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777));
        open.with_context(|| format!("emptyDir {}", path.display()))
    }

    /// Removes what is here of a pod; nothing may be.
    pub fn remove(&self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        // Whoever speaks CRI may have made the pod: its names are not ours to trust.
        if uid.is_empty() || [namespace, name, uid].iter().any(|part| part.contains('/') || part.starts_with('.')) {
            return Ok(());
        }
        remove_all(&self.log_directory(namespace, name, uid))?;
        remove_all(&self.empty_dirs(uid))?;
        // The last one takes the parents with it.
        for parent in [&self.logs, &self.empty_dirs] {
            let _ = std::fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Removes a container's log with what the rotation has made of it, if it lies here.
    pub fn remove_log(&self, log: &Path) -> Result<()> {
        let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Ok(()) };
        if !log.starts_with(&self.logs) || log.components().any(|c| c.as_os_str() == "..") {
            return Ok(());
        }
        let entries = match std::fs::read_dir(directory) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("directory {}", directory.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            let of_it = path.file_name().is_some_and(|n| {
                n == name || n.as_encoded_bytes().starts_with(&[name.as_encoded_bytes(), b"."].concat())
            });
            if of_it {
                std::fs::remove_file(&path).with_context(|| format!("log {}", path.display()))?;
            }
        }
        let _ = std::fs::remove_dir(directory);
        Ok(())
    }
}

/// Does not follow links: those are removed as such. What is mounted inside is somebody else's, and stops it.
fn remove_all(path: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    if let Some(mount) = mounted_below(&mounts, path) {
        bail!("{mount} is mounted inside {}; unmount it and remove the directory", path.display());
    }
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("directory {}", path.display())),
    }
}

/// The first mount point at or below a path (proc_pid_mountinfo(5): the fifth field, with octal escapes).
fn mounted_below(mountinfo: &str, path: &Path) -> Option<String> {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let unescape = |text: &str| escapes.iter().fold(text.to_owned(), |t, (from, to)| t.replace(from, to));
    let mut points = mountinfo.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape);
    points.find(|point| Path::new(point).starts_with(path))
}

/// Takes care that a `hostPath` is what its type says.
pub fn check_host_path(path: &str, kind: crate::commands::pods::spec::HostPathKind) -> Result<()> {
    use crate::commands::pods::spec::HostPathKind as Kind;
    use std::os::unix::fs::FileTypeExt;
    let at = Path::new(path);
    match kind {
        Kind::Any => return Ok(()),
        Kind::DirectoryOrCreate if !at.exists() => {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(at);
            made.with_context(|| format!("hostPath {path}"))?;
        }
        Kind::FileOrCreate if !at.exists() => {
            std::fs::File::create_new(at).with_context(|| format!("hostPath {path}"))?;
        }
        _ => {}
    }
    let is = std::fs::metadata(at).with_context(|| format!("hostPath {path}"))?.file_type();
    let (fits, word) = match kind {
        Kind::Any => (true, "anything"),
        Kind::Directory | Kind::DirectoryOrCreate => (is.is_dir(), "directory"),
        Kind::File | Kind::FileOrCreate => (is.is_file(), "file"),
        Kind::Socket => (is.is_socket(), "socket"),
        Kind::CharDevice => (is.is_char_device(), "character device"),
        Kind::BlockDevice => (is.is_block_device(), "block device"),
    };
    if !fits {
        bail!("hostPath {path} is no {word}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::pods::spec::HostPathKind as Kind;

    fn places(dir: &Path) -> Places {
        Places::new(&Layout::new(Some(dir)).unwrap())
    }

    #[test]
    fn a_pods_directories_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        places.make_empty_dir("u1", "tmp").unwrap();
        let volume = places.empty_dirs("u1").join("tmp");
        assert_eq!(std::fs::metadata(&volume).unwrap().permissions().mode() & 0o7777, 0o777);
        let logs = places.log_directory("ns", "web", "u1");
        std::fs::create_dir_all(logs.join("c")).unwrap();
        std::fs::write(logs.join("c/0.log"), "").unwrap();
        places.remove("ns", "web", "u1").unwrap();
        places.remove("ns", "web", "u1").unwrap();
        assert!(!dir.path().join("lib/emptydir").exists() && !dir.path().join("lib/pods-logs").exists());
    }

    #[test]
    fn strange_names_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let keep = dir.path().join("lib/keep");
        std::fs::create_dir_all(&keep).unwrap();
        for uid in ["../keep", "", "..", "a/../../keep"] {
            places.remove("ns", "web", uid).unwrap();
        }
        places.remove_log(&places.logs.join("../keep/x")).unwrap();
        assert!(keep.exists());
    }

    #[test]
    fn mounts_inside_are_seen() {
        let info = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /a\\040b/c/m rw - tmpfs t rw\n";
        assert_eq!(mounted_below(info, Path::new("/a b/c")).as_deref(), Some("/a b/c/m"));
        assert_eq!(mounted_below(info, Path::new("/a b/c/m")).as_deref(), Some("/a b/c/m"));
        assert_eq!(mounted_below(info, Path::new("/a b/c2")), None);
    }

    #[test]
    fn a_containers_logs_go_and_its_neighbours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let logs = places.log_directory("ns", "web", "u1").join("c");
        std::fs::create_dir_all(&logs).unwrap();
        for name in ["0.log", "0.log.2026.gz", "10.log", "1.log"] {
            std::fs::write(logs.join(name), "").unwrap();
        }
        places.remove_log(&logs.join("0.log")).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&logs).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["1.log", "10.log"]);
    }

    #[test]
    fn host_paths_are_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        check_host_path(&at("d/e"), Kind::DirectoryOrCreate).unwrap();
        check_host_path(&at("f"), Kind::FileOrCreate).unwrap();
        check_host_path(&at("d"), Kind::Directory).unwrap();
        check_host_path("/dev/null", Kind::CharDevice).unwrap();
        assert!(check_host_path(&at("f"), Kind::Directory).is_err());
        assert!(check_host_path(&at("missing"), Kind::File).is_err());
        assert!(check_host_path("/dev/null", Kind::BlockDevice).is_err());
        check_host_path(&at("missing"), Kind::Any).unwrap();
    }
}
