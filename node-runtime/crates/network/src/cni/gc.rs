//! Which attachments of a network are valid when its plugins are told to forget all others: ours, and those of every other
//! runtime of the node. A plugin's GC knows no owners: without this, the pods of a runtime that is being replaced would lose
//! their addresses.
//! Must not: run plugins.
use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::path::Path;

/// Where runtimes that use libcni keep what they attached, one file each (libcni/api.go).
pub(super) const LIBCNI_RESULTS: &str = "/var/lib/cni/results";
/// Longest file that is read.
const MAX_FILE: u64 = 4 << 20;
/// Most files.
const MAX_FILES: usize = 20_000;

/// One file, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    container_id: String,
    if_name: String,
    network_name: String,
}

/// Container and interface of what other runtimes attached to the network. `None` when that cannot be known: then nothing may
/// be forgotten.
pub(super) fn of_others(directory: &Path, network: &str) -> Option<Vec<(String, String)>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some(Vec::new()),
        other => other.ok()?,
    };
    let mut found = Vec::new();
    for (count, entry) in entries.enumerate() {
        let entry = entry.ok()?;
        let ours = entry.file_name().to_string_lossy().starts_with(&format!("{network}-"));
        if count == MAX_FILES {
            return None;
        }
        if !ours {
            continue;
        }
        let mut bytes = Vec::new();
        fs::File::open(entry.path()).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        let cached: Cached = serde_json::from_slice(&bytes).ok()?;
        if cached.network_name == network {
            found.push((cached.container_id, cached.if_name));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_attached_is_found_and_a_torn_file_forbids_everything() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "pods-c1-eth0",
            r#"{"kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "pods"}"#,
        );
        write("pods-b-c2-eth0", r#"{"containerId": "c2", "ifName": "eth0", "networkName": "pods-b"}"#);
        write("other-c3-eth0", "torn");
        assert_eq!(of_others(dir.path(), "pods").unwrap(), [("c1".to_owned(), "eth0".to_owned())]);
        assert_eq!(of_others(dir.path(), "other"), None);
        assert_eq!(of_others(Path::new("/nonexistent"), "pods").unwrap(), []);
    }
}
