//! The keys of credentials: which registry one means.
//!
//! Owns: that reading. Must not: match.
use crate::endpoint;

/// The registry that a key of a configuration means, and the path below it.
pub(crate) fn host_and_path(key: &str) -> (String, String) {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    // Old keys end in the version of the API: https://index.docker.io/v1/.
    let path = path.trim_end_matches('/');
    let path = path
        .strip_prefix("v1")
        .or_else(|| path.strip_prefix("v2"))
        .filter(|p| p.is_empty() || p.starts_with('/'))
        .unwrap_or(path);
    (endpoint::registry_of(host), path.trim_start_matches('/').to_owned())
}
