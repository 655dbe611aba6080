//! A directory of configurations to the one network that pods get: the first valid file in name order, as containerd takes it.
//! Must not: run plugins.
use super::config::{Form, MAX_CONFIG, MAX_PLUGINS, NetworkConfig, PluginConfig};
use super::record::check_recordable;
use super::secrets::Secrets;
use berth_model::{Error, Result, ResultExt};
use nix::fcntl::OFlag;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most files in the directory.
const MAX_FILES: usize = 200;

/// A network that was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network {
    pub(super) config: NetworkConfig,
    /// The file it came from.
    pub(super) file: PathBuf,
    pub(super) secrets: Secrets,
}

/// What a directory holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Found {
    pub(super) network: Option<Network>,
    /// Files that come before the network's in name order and are refused: sentences with file and field.
    pub(super) refused: Vec<String>,
    /// Valid or not: files that come after it, and are not used.
    pub(super) unused: Vec<String>,
}

impl Found {
    /// Why there is no network, for people.
    pub(super) fn problem(&self, dir: &Path) -> Option<String> {
        if self.network.is_some() {
            return None;
        }
        let place = dir.display();
        if self.refused.is_empty() {
            return Some(format!(
                "no CNI configuration in {place} (*.conflist, *.conf, *.json): install a network add-on, or set \
                 spec.network.mode to Builtin"
            ));
        }
        Some(format!("no valid CNI configuration in {place}: {}", self.refused.join("; ")))
    }
}

/// Looks through the directory. A directory that does not exist holds nothing. `beside` is a file that counts as if it were in it.
/// Errors: it cannot be listed, or holds too many files.
pub(super) fn load(dir: &Path, beside: Option<PathBuf>) -> Result<Found> {
    let mut found = Found::default();
    let mut files = files(dir, &["conflist", "conf", "json"])?;
    files.extend(beside);
    files.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
    for file in files {
        if found.network.is_some() {
            found.unused.push(file.display().to_string());
            continue;
        }
        match read_network(dir, &file) {
            Ok(config) => {
                let secrets = Secrets::of(&config);
                found.network = Some(Network { config, file, secrets });
            }
            Err(e) => found.refused.push(format!("{}: {e}", file.display())),
        }
    }
    Ok(found)
}

fn read_network(dir: &Path, file: &Path) -> Result<NetworkConfig> {
    let form = if file.extension().is_some_and(|e| e == "conflist") { Form::List } else { Form::Single };
    let mut config = NetworkConfig::parse(&read(file)?, form)?;
    if !config.only_inlined {
        // Specification 1.1, section 1: plugins may be dropped into the directory with the network's name.
        for part in files(&dir.join(&config.name), &["conf"])? {
            let plugin = read(&part).and_then(|bytes| PluginConfig::parse(&bytes)).context(|| part.display())?;
            config.add(plugin)?;
        }
    }
    if config.plugins.is_empty() {
        let problem = format!("are none, neither here nor in the directory {}/", config.name);
        return Err(Error::invalid("plugins", problem));
    }
    debug_assert!(config.plugins.len() <= MAX_PLUGINS);
    check_recordable(&config).context(|| "with all its plugins, as it is recorded for DEL")?;
    Ok(config)
}

/// Files with these extensions in name order. Hidden ones are an editor's.
fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| dir.display())?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.context(|| dir.display())?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        let wanted = path.extension().is_some_and(|e| extensions.iter().any(|w| e == *w));
        if wanted && !hidden {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Error::invalid(dir.display(), format!("holds more than {MAX_FILES} configurations")));
        }
    }
    files.sort();
    Ok(files)
}

/// The content of a file, also through a symbolic link. A pipe or device is not waited for.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::invalid("file", "is a symbolic link that leads nowhere"),
        _ => Error::from(e),
    })?;
    if !file.metadata()?.is_file() {
        return Err(Error::invalid("file", "is not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the parser's limit tells about a longer file.
    file.take(MAX_CONFIG as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"cniVersion": "1.0.0", "name": "good", "plugins": [{"type": "bridge"}]}"#;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_first_valid_file_in_name_order_is_taken() {
        let dir = dir(&[
            ("20-b.conflist", GOOD),
            ("10-a.conflist", "{"),
            ("30-c.conf", r#"{"cniVersion": "0.4.0", "name": "c", "type": "x"}"#),
            (".05-hidden.conf", "{"),
            ("00-note.txt", "{"),
        ]);
        let found = load(dir.path(), None).unwrap();
        assert_eq!(found.network.unwrap().config.name, "good");
        assert!(found.refused.len() == 1 && found.refused[0].contains("10-a.conflist: file: is not JSON"));
        assert!(found.unused.len() == 1 && found.unused[0].ends_with("30-c.conf"));
    }

    #[test]
    fn a_file_beside_counts_by_its_name_with_the_plugins_of_the_directory() {
        let (dir, other) =
            (dir(&[("05-a.conf", "{"), ("20-b.conflist", GOOD), ("mine/1.conf", r#"{"type": "tuning"}"#)]), dir(&[]));
        let beside = other.path().join("10-berth.conflist");
        fs::write(&beside, GOOD.replace("good", "mine")).unwrap();
        let found = load(dir.path(), Some(beside.clone())).unwrap();
        let network = found.network.unwrap();
        assert_eq!((network.config.name.as_str(), network.config.plugins.len(), network.file), ("mine", 2, beside));
        assert!(found.refused[0].contains("05-a.conf") && found.unused[0].ends_with("20-b.conflist"));
    }

    #[test]
    fn no_network_says_why() {
        let nowhere = Path::new("/nonexistent/net.d");
        assert!(
            load(nowhere, None)
                .unwrap()
                .problem(nowhere)
                .unwrap()
                .contains("no CNI configuration in /nonexistent/net.d")
        );
        let dir = dir(&[("a.conflist", GOOD.replace("bridge", "../bridge").as_str())]);
        let problem = load(dir.path(), None).unwrap().problem(dir.path()).unwrap();
        assert!(problem.contains("a.conflist: plugins[0].type"), "{problem}");
    }

    #[test]
    fn links_are_followed_and_what_is_no_file_is_not_waited_for() {
        let dir = dir(&[("real/x", GOOD)]);
        std::os::unix::fs::symlink("real/x", dir.path().join("20-link.conflist")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("10-dangling.conflist")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("15-pipe.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(dir.path().join("17-directory.conf")).unwrap();
        let found = load(dir.path(), None).unwrap();
        assert!(found.network.unwrap().file.ends_with("20-link.conflist"));
        assert!(found.refused[0].contains("leads nowhere") && found.refused[1].contains("not a regular file"));
        assert_eq!(found.refused.len(), 3);
    }

    #[test]
    fn plugins_can_be_dropped_in_beside_a_list() {
        let dir = dir(&[
            ("10-a.conflist", GOOD),
            ("good/20-second.conf", r#"{"type": "portmap", "capabilities": {"portMappings": true}}"#),
            ("good/10-first.conf", r#"{"type": "tuning"}"#),
        ]);
        let network = load(dir.path(), None).unwrap().network.unwrap();
        let kinds: Vec<&str> = network.config.plugins.iter().map(|p| p.kind.as_str()).collect();
        assert_eq!(kinds, ["bridge", "tuning", "portmap"]);
        fs::write(dir.path().join("good/30-bad.conf"), r#"{"type": "a/b"}"#).unwrap();
        assert!(load(dir.path(), None).unwrap().refused[0].contains("30-bad.conf: type:"));
    }

    #[test]
    fn a_network_that_del_could_not_read_from_its_record_is_refused() {
        let half = format!(r#"{{"type": "tuning", "x": "{}"}}"#, "y".repeat(MAX_CONFIG / 2));
        let dir = dir(&[("10-a.conflist", GOOD), ("good/1.conf", &half)]);
        assert!(load(dir.path(), None).unwrap().network.is_some());
        fs::write(dir.path().join("good/2.conf"), &half).unwrap();
        let refused = load(dir.path(), None).unwrap().refused.join("");
        assert!(refused.contains("10-a.conflist: with all its plugins") && refused.contains("256 KiB"), "{refused}");
    }
}
