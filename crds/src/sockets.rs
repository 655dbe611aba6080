//! Further sockets of a RuntimeConfig: paths at which the CRI answers besides the daemon's own socket.
//!
//! Owns: this type and its rule. Must not: look at a path.
use berth_model::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most further paths.
const MAX_PATHS: usize = 4;
/// Longest path of a socket in bytes: `sun_path` of unix(7) without its end.
const MAX_SOCKET_PATH: usize = 107;

/// Sockets besides the daemon's own two, which always stay where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sockets {
    /// Paths below /run at which the CRI answers besides its own socket, such as `/run/containerd/containerd.sock`, for programs of a
    /// node that know no other one; at most 4. They are for root alone (mode 0600), as its own socket is; the node API is not served there.
    /// A path at which somebody else listens, or where something other than a socket lies, is refused. Who mounts one into a container
    /// mounts its directory: the socket is another one after each start of the daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cri: Vec<String>,
}

/// Of one document, and of what several come to together. Errors: the field.
pub fn check_sockets(sockets: &Sockets) -> Result<()> {
    const FIELD: &str = "spec.runtime.sockets.cri";
    let paths = &sockets.cri;
    if paths.len() > MAX_PATHS {
        let problem = format!("has {} entries, the limit is {MAX_PATHS}; take out what no program uses", paths.len());
        return Err(Error::invalid(FIELD, problem));
    }
    for (i, path) in paths.iter().enumerate() {
        check_path(path).map_err(|problem| Error::invalid(format!("{FIELD}[{i}]"), problem))?;
    }
    for (i, path) in paths.iter().enumerate() {
        if paths[..i].iter().any(|other| below_run(other) == below_run(path)) {
            let problem = format!("{path} stands twice (/var/run is /run); take one of them out");
            return Err(Error::invalid(format!("{FIELD}[{i}]"), problem));
        }
    }
    Ok(())
}

/// What is wrong with one.
fn check_path(path: &str) -> Result<(), String> {
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("has {} bytes, the limit is {MAX_SOCKET_PATH}; take a shorter path", path.len()));
    }
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_graphic());
    match below_run(path) {
        Some(rest) if rest.split('/').all(plain) => {}
        _ => {
            return Err(format!(
                "{path:?} must be a path below /run/ or /var/run/ of visible ASCII characters, without empty, . and .. \
                 parts, such as /run/containerd/containerd.sock"
            ));
        }
    }
    if below_run(path).is_some_and(|rest| rest == "berth" || rest.starts_with("berth/")) {
        return Err(format!("{path:?} must not lie in /run/berth, which is Berth's own; take another directory"));
    }
    Ok(())
}

/// The part below /run, which has two names.
fn below_run(path: &str) -> Option<&str> {
    path.strip_prefix("/var").unwrap_or(path).strip_prefix("/run/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str]) -> Result<()> {
        check_sockets(&Sockets { cri: paths.iter().map(|path| (*path).to_owned()).collect() })
    }

    #[test]
    fn paths_below_run_are_good() {
        let longest = format!("/run/{}", "a".repeat(MAX_SOCKET_PATH - "/run/".len()));
        check(&[]).unwrap();
        check(&["/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/run/berthed.sock", &longest]).unwrap();
    }

    #[test]
    fn rules_name_field_and_limit() {
        let long = format!("/run/{}", "a".repeat(MAX_SOCKET_PATH + 1 - "/run/".len()));
        let cases = [
            "",
            "run/a",
            "/tmp/a",
            "/run",
            "/run/",
            "/runner/a",
            "/run/a/",
            "/run//a",
            "/run/./a",
            "/run/../a",
            "/run/a b",
            "/run/a\0",
            "/run/ü",
            "/var/run/..",
            "/var/var/run/a",
        ];
        for path in cases {
            let error = check(&["/run/a", path]).unwrap_err();
            assert!(error.message().starts_with("spec.runtime.sockets.cri[1]: "), "{path:?}: {error}");
            assert!(error.message().contains("below /run/ or /var/run/"), "{path:?}: {error}");
        }
        for own in ["/run/berth", "/run/berth/berth.sock", "/var/run/berth/x/y"] {
            assert!(check(&[own]).unwrap_err().message().contains("Berth's own"), "{own}");
        }
        assert!(check(&[&long]).unwrap_err().message().contains("108 bytes, the limit is 107"));
        let five = ["/run/a", "/run/b", "/run/c", "/run/d", "/run/e"];
        assert!(check(&five).unwrap_err().message().contains("cri: has 5 entries, the limit is 4"));
        for twice in [["/run/a", "/run/a"], ["/run/a", "/var/run/a"]] {
            let error = check(&twice).unwrap_err();
            assert!(error.message().starts_with("spec.runtime.sockets.cri[1]: ") && error.message().contains("twice"));
        }
    }
}
