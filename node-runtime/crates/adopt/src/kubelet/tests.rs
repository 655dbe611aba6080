//! Command lines and files of kubelets as they are met.
use super::*;
use serde_json::json;
use std::collections::BTreeMap;

/// Files in memory.
#[derive(Default)]
pub struct Memory(pub BTreeMap<PathBuf, String>);

impl Memory {
    pub fn with(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
    }
}

impl Files for Memory {
    fn text(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.keys().filter(|path| path.starts_with(dir)).cloned().collect())
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn flags_are_read_in_both_forms_and_the_last_one_counts() {
    let line =
        words("kubelet --config=/c --max-pods 20 --resolv-conf= --max-pods=30 --fail-swap-on --v 2 -- --config=/d");
    assert_eq!(flag(&line, "config"), Some("/c"));
    assert_eq!(flag(&line, "max-pods"), Some("30"));
    assert_eq!(flag(&line, "resolv-conf"), Some(""));
    assert_eq!(flag(&line, "fail-swap-on"), Some("true"));
    assert_eq!((flag(&line, "max"), flag(&words("kubelet --config"), "config")), (None, None));
    let line = words("kubelet --container_runtime_endpoint=unix:///a --max_pods 9 --fail_swap_on");
    assert_eq!(flag(&line, ENDPOINT_FLAG), Some("unix:///a"), "as the kubelet takes it");
    assert_eq!((flag(&line, "max-pods"), flag(&line, "fail-swap-on")), (Some("9"), Some("true")));
    let line = words("kubelet --feature-gates=A=true,B=False --feature-gates B=true,broken,C=maybe");
    let expected = [("A", true), ("B", false), ("B", true)].map(|(name, on)| (name.to_owned(), on));
    assert_eq!(gates(&line), expected);
}

#[test]
fn drop_ins_win_over_the_file_and_flags_over_all() {
    let files = Memory::with(&[
        ("/etc/k.yaml", "containerRuntimeEndpoint: unix:///a\nmaxPods: 20\nfeatureGates: {A: true}\n"),
        ("/etc/k.d/10.conf", "containerRuntimeEndpoint: unix:///b\nfeatureGates: {B: true}\n"),
        ("/etc/k.d/20.conf", "maxPods: null\n"),
        ("/etc/k.d/30.yaml", "containerRuntimeEndpoint: unix:///ignored\n"),
    ]);
    let read = Configuration::read(words("kubelet --config /etc/k.yaml --config-dir /etc/k.d"), &files);
    assert!(read.problems.is_empty());
    assert_eq!(read.endpoint(), "unix:///b");
    assert_eq!(read.origin(ENDPOINT), Origin::DropIn("/etc/k.d/10.conf".into()));
    assert_eq!(
        (read.text("maxPods"), read.gate("A"), read.gate("B"), read.gate("C")),
        (None, Some(true), Some(true), None)
    );
    let line = words(
        "kubelet --config=/etc/k.yaml --container-runtime-endpoint=unix:///c --feature-gates=A=false --healthz-port=0",
    );
    let read = Configuration::read(line, &files);
    assert_eq!((read.endpoint().as_str(), read.origin(ENDPOINT)), ("unix:///c", Origin::Flag));
    assert_eq!((read.gate("A"), read.healthz()), (Some(false), None));
    assert_eq!(read.settings["maxPods"], json!(20));
}

#[test]
fn what_is_not_said_is_the_default_and_what_is_broken_is_told() {
    let read = Configuration::read(words("kubelet"), &Memory::default());
    assert_eq!((read.endpoint().as_str(), read.origin(ENDPOINT)), (DEFAULT_ENDPOINT, Origin::Default));
    assert_eq!(read.healthz(), Some(("127.0.0.1".to_owned(), 10248)));
    let files = Memory::with(&[("/d/1.conf", "a: ["), ("/d/2.conf", "maxPods: 1\n")]);
    let read = Configuration::read(words("kubelet --config=/gone --config-dir=/d"), &files);
    let broken: Vec<_> = read.problems.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    assert_eq!(broken, ["/gone", "/d/1.conf"]);
    assert_eq!(read.text("maxPods").as_deref(), Some("1"));
}

#[test]
fn the_group_of_pods_is_named_as_each_driver_has_it() {
    let names = |line: &str| {
        let read = Configuration::read(words(line), &Memory::default());
        (read.pods_group(false), read.pods_group(true))
    };
    let both = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert_eq!(names("kubelet"), both("/kubepods", "kubepods.slice"));
    assert_eq!(names("kubelet --cgroup-root=/"), both("/kubepods", "kubepods.slice"));
    let below = both("/a-b/c/kubepods", "a_b-c-kubepods.slice");
    assert_eq!(names("kubelet --cgroup-root=/a-b/c"), below);
}
