//! Berth's daemon on a node that another runtime has. Both look for CNI configurations in one directory as a rule, and take the first one
//! in name order: the one that a document has the daemon write (`written`) would be the other runtime's network too. While there is the
//! directory `beside` in that of attachments, the daemon keeps its configuration in there, and pods of its own get it all the same.
//!
//! Owns: that directory, for whoever takes the node over and gives it back (`berth adopt`); the daemon looks at it and must not make it.
//! `cni` is the directory of [`super::Cni::open`] throughout. Errors: those of the disk. Format: docs/formats/cni-attachment.md.
use super::written;
use berth_model::{Result, ResultExt};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use super::written::FILE;

/// Its name.
pub(super) const DIRECTORY: &str = "beside";
/// Its name while it does not count and may have to come back: that takes no room on a disk.
const ASIDE: &str = "beside.before";

/// Where it is recorded which file was written.
pub(super) fn record(cni: &Path) -> PathBuf {
    cni.join("written-configuration.json")
}

/// The directory beside that record, while it counts.
pub(super) fn directory(record: &Path) -> Option<PathBuf> {
    Some(record.with_file_name(DIRECTORY)).filter(|beside| beside.is_dir())
}

/// The configuration in it, if there is one.
pub(super) fn configuration(record: &Path) -> Option<PathBuf> {
    Some(directory(record)?.join(FILE)).filter(|file| file.exists())
}

/// Whether a configuration of the daemon's stands where other runtimes look too.
pub fn has_written(cni: &Path) -> bool {
    written::standing(&record(cni)).is_some_and(|file| !file.starts_with(cni.join(DIRECTORY)))
}

/// From here on none is written there, and the one that was goes; one that somebody else has put in its place is left, and named. It may be
/// called again, also while the daemon runs.
pub fn hold_back(cni: &Path) -> Result<Option<PathBuf>> {
    let (beside, aside) = (cni.join(DIRECTORY), cni.join(ASIDE));
    match fs::rename(&aside, &beside) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&beside).context(|| beside.display())?;
        }
        // Both are there: the one that a daemon has counts.
        Err(e) if !beside.is_dir() => return Err(e).context(|| beside.display()),
        _ => {}
    }
    // The record stays: a daemon that is just writing finds its file by it at its next look.
    let record = record(cni);
    if written::recorded(&record).is_some_and(|file| file.starts_with(&beside)) {
        return Ok(None);
    }
    written::take_away(&record)
}

/// From here on the daemon writes where CNI looks, at its next look: in a few seconds. It may be called again.
pub fn let_write(cni: &Path) -> Result<()> {
    let (beside, aside) = (cni.join(DIRECTORY), cni.join(ASIDE));
    if !beside.is_dir() {
        return Ok(());
    }
    remove_tree(&aside)?;
    fs::rename(&beside, &aside).context(|| beside.display())?;
    File::open(cni).and_then(|dir| dir.sync_all()).context(|| cni.display())
}

/// It stays so: nothing has to come back.
pub fn settle(cni: &Path) -> Result<()> {
    remove_tree(&cni.join(ASIDE))
}

/// No daemon runs, and none is to: whatever was written goes; a file that is somebody else's is left, and named. It may be called again.
pub fn withdraw(cni: &Path) -> Result<Option<PathBuf>> {
    let left = written::take_away(&record(cni))?;
    written::forget(&record(cni))?;
    remove_tree(&cni.join(ASIDE))?;
    remove_tree(&cni.join(DIRECTORY))?;
    Ok(left)
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).context(|| path.display()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::{Cni, CniConfig};
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "mine", "plugins": [{"type": "bridge"}]}"#;
    const OTHER: &str = r#"{"cniVersion": "1.0.0", "name": "calico", "plugins": [{"type": "bridge"}]}"#;

    struct Node {
        dir: tempfile::TempDir,
        cni: PathBuf,
        file: PathBuf,
    }

    /// With an add-on's configuration.
    fn node() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (cni, conf_dir) = (dir.path().join("lib/cni"), dir.path().join("net.d"));
        fs::create_dir(&conf_dir).unwrap();
        fs::write(conf_dir.join("10-calico.conflist"), OTHER).unwrap();
        Node { file: conf_dir.join(FILE), cni, dir }
    }

    impl Node {
        /// A daemon that gives pods their network, and has not looked yet.
        async fn daemon(&self) -> Cni {
            let config = CniConfig {
                conf_dir: self.dir.path().join("net.d"),
                bin_dirs: vec![self.dir.path().join("bin")],
                timeout: Duration::from_secs(1),
                conf_list: Some(LIST.to_owned()),
                parallel_adds: 1,
            };
            let daemon = Cni::open(self.cni.clone(), config, Box::new(|_| {})).await.unwrap();
            daemon.inner.chosen.store(true, Ordering::Relaxed);
            daemon
        }

        fn left(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.cni).unwrap().flatten();
            let names = entries.map(|entry| entry.file_name().to_str().unwrap().to_owned());
            names.filter(|name| name != "attachments").collect()
        }
    }

    #[tokio::test]
    async fn another_runtime_sees_it_only_while_it_has_not_the_node() {
        let node = node();
        assert_eq!(hold_back(&node.cni).unwrap(), None);
        let daemon = node.daemon().await;
        let look = async || daemon.write_configuration().await.unwrap();
        look().await;
        assert!(!node.file.exists() && !has_written(&node.cni));
        // The node is taken over.
        let_write(&node.cni).unwrap();
        let_write(&node.cni).unwrap();
        look().await;
        assert!(node.file.exists() && has_written(&node.cni));
        // It is not, after all; asked twice, as by whoever goes on from a journal.
        for _ in 0..2 {
            assert_eq!(hold_back(&node.cni).unwrap(), None);
            assert!(!node.file.exists());
            look().await;
            assert!(!node.file.exists() && configuration(&record(&node.cni)).is_some());
        }
        let_write(&node.cni).unwrap();
        settle(&node.cni).unwrap();
        look().await;
        assert_eq!(node.left(), ["written-configuration.json"]);
        // It is given back while the daemon is just writing: it finds the file at its next look.
        let text = fs::read(&node.file).unwrap();
        hold_back(&node.cni).unwrap();
        fs::write(&node.file, text).unwrap();
        look().await;
        assert!(!node.file.exists());
    }

    #[tokio::test]
    async fn pods_of_its_own_get_it_all_the_same() {
        let node = node();
        hold_back(&node.cni).unwrap();
        let daemon = node.daemon().await;
        daemon.follow().await;
        let report = daemon.report();
        assert_eq!((report.network.as_deref(), report.file), (Some("mine"), Some(node.cni.join("beside").join(FILE))));
    }

    #[tokio::test]
    async fn nothing_stays_of_a_daemon_that_ended_but_what_is_somebody_elses() {
        let node = node();
        for held in [false, true] {
            if held {
                hold_back(&node.cni).unwrap();
            }
            node.daemon().await.write_configuration().await.unwrap();
            assert_eq!((node.file.exists(), has_written(&node.cni)), (!held, !held));
            for _ in 0..2 {
                assert_eq!(withdraw(&node.cni).unwrap(), None);
                assert!(!node.file.exists() && node.left().is_empty(), "{:?}", node.left());
            }
        }
        node.daemon().await.write_configuration().await.unwrap();
        fs::write(&node.file, "{}").unwrap();
        assert!(!has_written(&node.cni));
        assert_eq!(hold_back(&node.cni).unwrap(), Some(node.file.clone()));
        assert_eq!(withdraw(&node.cni).unwrap(), Some(node.file.clone()));
        assert_eq!(fs::read_to_string(&node.file).unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_directory_in_its_place_is_somebody_elses() {
        let node = node();
        node.daemon().await.write_configuration().await.unwrap();
        fs::remove_file(&node.file).unwrap();
        fs::create_dir(&node.file).unwrap();
        assert_eq!(hold_back(&node.cni).unwrap(), Some(node.file.clone()));
        assert_eq!(withdraw(&node.cni).unwrap(), Some(node.file.clone()));
        assert!(node.file.is_dir() && node.left().is_empty());
        let refused = node.daemon().await.write_configuration().await.unwrap_err();
        assert!(refused.message().contains("somebody else's; remove it, or unset"), "{refused}");
    }

    #[tokio::test]
    async fn a_file_of_somebody_elses_is_told_before_it_is_in_the_way() {
        let node = node();
        hold_back(&node.cni).unwrap();
        fs::write(&node.file, "{}").unwrap();
        let refused = node.daemon().await.write_configuration().await.unwrap_err();
        assert!(refused.message().contains("somebody else's; remove it, or unset"), "{refused}");
    }
}
