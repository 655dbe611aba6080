//! Running kubelets: their command lines and configuration files. Names of settings are those of KubeletConfiguration
//! (kubelet.config.k8s.io/v1beta1); a flag wins over the file, as in the kubelet.
use super::{MAX_FILE, contents, processes, text};
use crate::commands::yaml;
use crate::doctor::facts::Kubelet;
use crate::layout::Layout;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Flags and the settings that they are.
const FLAGS: [(&str, &str); 7] = [
    ("container-runtime-endpoint", "containerRuntimeEndpoint"),
    ("image-service-endpoint", "imageServiceEndpoint"),
    ("cgroup-driver", "cgroupDriver"),
    ("resolv-conf", "resolvConf"),
    ("max-pods", "maxPods"),
    ("fail-swap-on", "failSwapOn"),
    ("pod-manifest-path", "staticPodPath"),
];

/// The kubelet with this id; else all of the node for the system's own daemon, and those that name its socket for another one.
pub(super) fn gather(layout: &Layout, only: Option<u32>) -> Vec<Kubelet> {
    let found =
        processes().into_iter().filter(|pid| only.is_none_or(|o| o == *pid) && (only.is_some() || is_kubelet(*pid)));
    let all = found.map(read);
    let ours = layout.cri_socket();
    let is_ours = |k: &Kubelet| Kubelet::socket(k.setting("containerRuntimeEndpoint")) == ours;
    all.filter(|k| only.is_some() || layout.is_system() || is_ours(k)).collect()
}

fn is_kubelet(pid: u32) -> bool {
    text(format!("/proc/{pid}/comm")).is_some_and(|name| name.trim() == "kubelet")
}

fn read(pid: u32) -> Kubelet {
    let line = text(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&str> = line.split('\0').collect();
    // Paths are those of the kubelet, which may have another root.
    let root = format!("/proc/{pid}/root");
    let inside = |path: &Path| Path::new(&root).join(path.strip_prefix("/").unwrap_or(path));
    let mut kubelet = Kubelet { pid, config: flag(&arguments, "config").map(PathBuf::from), ..Kubelet::default() };
    if let Some(file) = &kubelet.config {
        match configuration(&inside(file)) {
            Ok(settings) => kubelet.settings = settings,
            Err(problem) => kubelet.problem = Some(problem),
        }
    }
    for (name, setting) in FLAGS {
        if let Some(value) = flag(&arguments, name) {
            kubelet.settings.insert(setting.to_owned(), value.to_owned());
        }
    }
    let file = kubelet.setting("resolvConf").to_owned();
    if !file.is_empty() {
        kubelet.resolv_conf = super::network::servers(&inside(Path::new(&file)));
    }
    kubelet
}

/// The value of `--name=value` or `--name value`.
fn flag<'a>(arguments: &[&'a str], name: &str) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(i, argument)| {
        let rest = argument.strip_prefix("--")?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => arguments.get(i + 1).copied(),
            None => None,
        }
    })
}

/// The scalars of a configuration file.
fn configuration(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = contents(file, MAX_FILE).map_err(|e| e.to_string())?;
    let documents = yaml::documents(&text).map_err(|e| format!("{e:#}"))?;
    let Some(Value::Object(fields)) = documents.into_iter().next() else {
        return Err("is no document with fields".to_owned());
    };
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    Ok(fields.into_iter().filter_map(|(name, value)| Some((name, scalar(value)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_both_forms() {
        let arguments = ["kubelet", "--config=/c", "--max-pods", "20", "--resolv-conf="];
        assert_eq!(flag(&arguments, "config"), Some("/c"));
        assert_eq!(flag(&arguments, "max-pods"), Some("20"));
        assert_eq!(flag(&arguments, "resolv-conf"), Some(""));
        assert_eq!(flag(&arguments, "max"), None);
    }

    #[test]
    fn files_are_read_and_broken_ones_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.yaml");
        std::fs::write(&file, "kind: KubeletConfiguration\nmaxPods: 20\nfailSwapOn: false\nlist: [1]\n").unwrap();
        let settings = configuration(&file).unwrap();
        assert_eq!((settings["maxPods"].as_str(), settings["failSwapOn"].as_str()), ("20", "false"));
        assert!(!settings.contains_key("list"));
        std::fs::write(&file, "a: [").unwrap();
        assert!(configuration(&file).is_err());
        assert!(configuration(&dir.path().join("gone")).unwrap_err().contains("No such file"));
        assert!(configuration(Path::new("/dev/zero")).unwrap_err().contains("no regular file"));
    }
}
