//! What a kubelet was told: its command line, its configuration file, and the drop-ins beside it. A flag wins over all files, a drop-in over
//! those that are read before it and over the file (Kubernetes 1.37, cmd/kubelet/app/server.go).
//!
//! Owns: parsing and merging. Must not: find processes; files are read by whoever asks, with a limit. Fuzz target: `kubelet_config`.
mod flags;

pub use flags::{flag, gates, values};

use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};

/// What a kubelet's configuration has to be, in each file.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// The kind.
pub const KIND: &str = "KubeletConfiguration";
/// The field that names the runtime's socket.
pub const ENDPOINT: &str = "containerRuntimeEndpoint";
/// The flag for it.
pub const ENDPOINT_FLAG: &str = "container-runtime-endpoint";
/// The field with switches of features.
pub const GATES: &str = "featureGates";
/// The switch that has the kubelet ask the runtime for what pods use (KEP-2371).
pub const STATS_GATE: &str = "PodAndContainerStatsFromCRI";
/// Where a kubelet that was told nothing looks (`SetDefaults_KubeletConfiguration`, and the flag's own default).
pub const DEFAULT_ENDPOINT: &str = "unix:///run/containerd/containerd.sock";

/// Flags and the settings that they are, where a setting is one value.
const FLAGS: [(&str, &str); 10] = [
    (ENDPOINT_FLAG, ENDPOINT),
    ("image-service-endpoint", "imageServiceEndpoint"),
    ("cgroup-driver", "cgroupDriver"),
    ("resolv-conf", "resolvConf"),
    ("max-pods", "maxPods"),
    ("fail-swap-on", "failSwapOn"),
    ("pod-manifest-path", "staticPodPath"),
    ("healthz-port", "healthzPort"),
    ("healthz-bind-address", "healthzBindAddress"),
    ("cgroup-root", "cgroupRoot"),
];
/// Most drop-ins that are read.
const MAX_DROP_INS: usize = 256;

/// How files of the kubelet's view of the node are read. Paths are the kubelet's.
pub trait Files {
    /// A file's text. Errors: not there, no regular file, no text, larger than the reader's limit.
    fn text(&self, path: &Path) -> io::Result<String>;
    /// Files below a directory, in the order in which a walk by name meets them. Errors: it cannot be read.
    fn below(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
}

/// A configuration file, as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Where, as the kubelet names it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its fields.
    pub fields: Map<String, Value>,
}

/// Who sets a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A drop-in.
    DropIn(PathBuf),
    /// The configuration file.
    File(PathBuf),
    /// Nobody.
    Default,
}

/// What a kubelet was told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    /// Its command line, the program first.
    pub arguments: Vec<String>,
    /// Its configuration file.
    pub file: Option<Source>,
    /// Its drop-in directory (`--config-dir`).
    pub drop_in_dir: Option<PathBuf>,
    /// Drop-ins in the order in which they are merged.
    pub drop_ins: Vec<Source>,
    /// What was merged: fields as in KubeletConfiguration, flags last.
    pub settings: Map<String, Value>,
    /// Files that cannot be read or parsed, and why.
    pub problems: Vec<(PathBuf, String)>,
}

impl Configuration {
    /// Reads what the command line names. Never fails: what cannot be read is among the problems.
    pub fn read(arguments: Vec<String>, files: &impl Files) -> Self {
        let mut read = Self { drop_in_dir: flag(&arguments, "config-dir").map(PathBuf::from), ..Self::default() };
        if let Some(path) = flag(&arguments, "config").filter(|path| !path.is_empty()) {
            read.file = read.source(Path::new(path), files);
        }
        if let Some(dir) = read.drop_in_dir.clone().filter(|dir| !dir.as_os_str().is_empty()) {
            match files.below(&dir) {
                Ok(all) => read.take_drop_ins(all, files),
                Err(e) => read.problems.push((dir, e.to_string())),
            }
        }
        let sources = read.file.iter().chain(&read.drop_ins);
        let merged = sources.fold(Map::new(), |merged, source| patch(merged, &source.fields));
        read.settings = with_flags(merged, &arguments);
        read.arguments = arguments;
        read
    }

    fn take_drop_ins(&mut self, all: Vec<PathBuf>, files: &impl Files) {
        for path in all.into_iter().filter(|path| path.extension().is_some_and(|e| e == "conf")) {
            if self.drop_ins.len() == MAX_DROP_INS {
                self.problems.push((path, format!("is the {}th drop-in; no more are read", MAX_DROP_INS + 1)));
                return;
            }
            if let Some(source) = self.source(&path, files) {
                self.drop_ins.push(source);
            }
        }
    }

    fn source(&mut self, path: &Path, files: &impl Files) -> Option<Source> {
        let text = files.text(path).map_err(|e| e.to_string());
        match text.and_then(|text| Ok((crate::yaml::fields(&text)?, text))) {
            Ok((fields, text)) => Some(Source { path: path.to_owned(), text, fields }),
            Err(problem) => {
                self.problems.push((path.to_owned(), problem));
                None
            }
        }
    }

    /// A setting that is one value, as text.
    pub fn text(&self, field: &str) -> Option<String> {
        scalar(self.settings.get(field)?)
    }

    /// The runtime's endpoint; what is not said is the kubelet's default.
    pub fn endpoint(&self) -> String {
        self.text(ENDPOINT).filter(|e| !e.is_empty()).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
    }

    /// Whether a feature was switched, and how.
    pub fn gate(&self, name: &str) -> Option<bool> {
        self.settings.get(GATES)?.get(name)?.as_bool()
    }

    /// The flag of the command line, if there is one, that says what a field with this value says too: it wins over all files.
    pub fn flag_for(&self, field: &str, value: &Value) -> Option<String> {
        flags::names_for(field, value).into_iter().find(|name| flags::is_given(&self.arguments, name))
    }

    /// Whether a field has that value; of a map, at least those entries.
    pub fn says(&self, field: &str, value: &Value) -> bool {
        let meant = Map::from_iter([(field.to_owned(), value.clone())]);
        patch(self.settings.clone(), &meant) == self.settings
    }

    /// Who sets a field that is one value: the last one to do so.
    pub fn origin(&self, field: &str) -> Origin {
        let by_flag = FLAGS.iter().any(|(name, setting)| *setting == field && flag(&self.arguments, name).is_some());
        if by_flag {
            return Origin::Flag;
        }
        let sets = |source: &&Source| source.fields.get(field).is_some_and(|value| !value.is_null());
        if let Some(drop_in) = self.drop_ins.iter().rev().find(sets) {
            return Origin::DropIn(drop_in.path.clone());
        }
        self.file.iter().find(sets).map_or(Origin::Default, |file| Origin::File(file.path.clone()))
    }

    /// The control group above those of all pods (`defaultNodeAllocatableCgroupName` in pkg/kubelet/cm/node_container_manager_linux.go), below
    /// `cgroupRoot`, by the name that it has with one of both drivers: with systemd as a slice (`ToSystemd` in cgroup_manager_linux.go there).
    pub fn pods_group(&self, systemd: bool) -> String {
        let root = self.text("cgroupRoot").unwrap_or_default();
        let parts = root.split('/').filter(|part| !part.is_empty()).chain(["kubepods"]);
        if systemd {
            // A `-` would nest it.
            return parts.map(|part| part.replace('-', "_")).collect::<Vec<_>>().join("-") + ".slice";
        }
        parts.map(|part| format!("/{part}")).collect()
    }

    /// Where it says that it is well: address and port of its healthz server; `None` where that is off. Defaults as
    /// `SetDefaults_KubeletConfiguration` has them.
    pub fn healthz(&self) -> Option<(String, u16)> {
        let port = self.text("healthzPort").map_or(Some(10248), |port| port.parse().ok())?;
        let address = self.text("healthzBindAddress").filter(|a| !a.is_empty());
        (port != 0).then(|| (address.unwrap_or_else(|| "127.0.0.1".to_owned()), port))
    }
}

/// One value as text.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// RFC 7396, as the kubelet merges drop-ins: maps field by field, null takes away, everything else is replaced.
fn patch(mut target: Map<String, Value>, changes: &Map<String, Value>) -> Map<String, Value> {
    for (name, change) in changes {
        match change {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) => {
                let old = match target.remove(name) {
                    Some(Value::Object(old)) => old,
                    _ => Map::new(),
                };
                target.insert(name.clone(), patch(old, inner).into());
            }
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
    target
}

/// Flags win. Switches of features are added to those of the files.
fn with_flags(mut settings: Map<String, Value>, arguments: &[String]) -> Map<String, Value> {
    for (name, setting) in FLAGS {
        if let Some(value) = flag(arguments, name) {
            settings.insert(setting.to_owned(), value.into());
        }
    }
    let switched: Map<String, Value> = gates(arguments).into_iter().map(|(name, on)| (name, on.into())).collect();
    if !switched.is_empty() {
        settings = patch(settings, &Map::from_iter([(GATES.to_owned(), switched.into())]));
    }
    settings
}

#[cfg(test)]
mod tests;
