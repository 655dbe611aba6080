//! A node on containerd whose kubelet is started by two scripts, as a node without systemd has it; and its way to Berth.
//!
//! Owns: the node and what is asked of it. Must not: know single cases.
use berth_cluster_tests::kubelet::{self, Options, READ_ONLY};
use berth_cluster_tests::runtime::{self, Kind, Runtime};
use berth_cluster_tests::service::Service;
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::standalone::{LIMIT, is_ready};
use berth_cluster_tests::{Diagnose, cgroups, http, images, programs, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// The node's own pods.
const PODS: [&str; 2] = ["web", "shell"];
/// How long whoever walks back may take.
const SETTLED: Duration = Duration::from_secs(120);

/// Two nodes. One has no registry any more when its pods run: what its pods need on Berth comes out of containerd's store.
pub struct Nodes(Mutex<Vec<Place>>, Condvar);

/// Where one of them is. There is none where a case has failed: what that has left would make the cases behind it fail too.
struct Place {
    with_registry: bool,
    node: Option<Node>,
}

impl Nodes {
    pub fn start() -> Self {
        let nodes = std::thread::scope(|scope| {
            let start = |with_registry| Place { with_registry, node: Some(Node::start(with_registry)) };
            [true, false].map(|registry| scope.spawn(move || start(registry))).map(|place| place.join().unwrap())
        });
        Self(Mutex::new(nodes.into()), Condvar::new())
    }

    /// A node, as soon as one is free; a new one where the last one was thrown away.
    pub fn take(&self) -> Taken<'_> {
        let place = self.free_place();
        // Given back also if the start fails.
        let mut taken = Taken { nodes: self, with_registry: place.with_registry, node: place.node };
        if taken.node.is_none() {
            taken.node = Some(Node::start(place.with_registry));
        }
        taken
    }

    fn free_place(&self) -> Place {
        let mut free = self.0.lock().unwrap();
        loop {
            match free.pop() {
                Some(place) => return place,
                None => free = self.1.wait(free).unwrap(),
            }
        }
    }

    pub fn finish(self) {
        let nodes = self.0.into_inner().unwrap().into_iter().filter_map(|place| place.node).collect::<Vec<_>>();
        std::thread::scope(|scope| nodes.into_iter().for_each(|node| drop(scope.spawn(move || node.finish()))));
    }
}

/// A node, until it is dropped.
pub struct Taken<'a> {
    nodes: &'a Nodes,
    with_registry: bool,
    node: Option<Node>,
}

impl std::ops::Deref for Taken<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node.as_ref().unwrap()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Of a case that has failed nothing stays: with its namespaces everything of the node ends.
        let node = self.node.take().filter(|_| !std::thread::panicking());
        self.nodes.0.lock().unwrap().push(Place { with_registry: self.with_registry, node });
        self.nodes.1.notify_one();
    }
}

/// A node.
pub struct Node {
    space: Logged,
    registry: Option<Service>,
    containerd: Runtime,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Node {
    fn start(with_registry: bool) -> Self {
        let space = Logged(NodeSpace::new());
        let registry = images::start(&space.0, &space);
        let containerd = Runtime::start(&space.0, &space, Kind::Containerd);
        let mut node = Self { space, registry: Some(registry), containerd };
        let base = node.base();
        for (name, path) in [
            ("kubelet", "logs/kubelet.log"),
            ("deadman", "berth/lib/adopt/deadman.log"),
            ("berth", "berth/log/berth.log"),
        ] {
            node.space.0.watch_log(name, base.join(path));
        }
        let name = node.group_of_berth();
        for group in [name.clone(), format!("{name}-adopt"), format!("{name}-runtime")] {
            node.space.0.owns_group(&group);
        }
        fs::create_dir_all(node.root().join("etc")).unwrap();
        let document = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "node"},
            "spec": {"network": {"mode": "CNI", "cni": {"confDir": base.join("containerd/cni"), "binDirs": [programs::path_from_env("BERTH_PEERS")]}}},
        });
        fs::write(node.root().join("etc/50-node.yaml"), document.to_string()).unwrap();
        node.scripts();
        for pod in PODS {
            node.add_pod(pod);
        }
        node.start_kubelet(true);
        node.is_on(Kind::Containerd);
        if let Some(registry) = node.registry.take_if(|_| !with_registry) {
            registry.kill();
        }
        node
    }

    pub fn base(&self) -> &Path {
        self.space.0.base()
    }

    /// Berth's root.
    pub fn root(&self) -> PathBuf {
        self.base().join("berth")
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.root().join("run/berth.sock").display())
    }

    /// What starts and stops the kubelet on this node.
    fn scripts(&self) {
        let (base, kubelet) = (self.base().display(), format!("{}/kubelet", self.space.0.group()));
        cgroups::create(&kubelet).unwrap();
        let groups: String = cgroups::directories(&kubelet)
            .iter()
            .map(|dir| format!("echo $$ > {}/cgroup.procs\n", dir.display()))
            .collect();
        let start = format!(
            "#!/bin/sh\nset -e\n{groups}read -r line < {base}/kubelet.line\nsetsid $line >> {base}/logs/kubelet.log 2>&1 < /dev/null &\necho $! > {base}/kubelet.pid\n"
        );
        self.place("start-kubelet", &start);
        self.stop_after("");
    }

    /// A program of this text, by its path below the node's directory.
    pub fn place(&self, name: &str, text: &str) {
        let path = self.base().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What stops the kubelet does this first, in words of the shell.
    pub fn stop_after(&self, first: &str) {
        let base = self.base().display();
        let stop = format!(
            "#!/bin/sh\n{first}\npid=$(cat {base}/kubelet.pid)\nkill $pid\nwhile kill -0 $pid 2>/dev/null; do sleep 0.02; done\n"
        );
        self.place("stop-kubelet", &stop);
    }

    /// Starts the kubelet anew, with a directory for drop-ins or without.
    pub fn start_kubelet(&self, drop_ins: bool) {
        if self.base().join("kubelet.pid").exists() {
            self.script("stop-kubelet");
        }
        let mut recipe = kubelet::recipe(&self.space.0, &self.containerd.endpoint(), &Options::default());
        fs::set_permissions(self.base().join("kubelet.json"), fs::Permissions::from_mode(0o640)).unwrap();
        if drop_ins {
            fs::create_dir_all(self.base().join("kubelet.d")).unwrap();
            recipe = recipe.flag("config-dir", self.base().join("kubelet.d").display());
        }
        let arguments: Vec<_> = recipe.args.iter().map(|word| word.to_str().unwrap()).collect();
        let line = format!("{} {}\n", recipe.program.display(), arguments.join(" "));
        fs::write(self.base().join("kubelet.line"), line).unwrap();
        self.script("start-kubelet");
    }

    pub fn script(&self, name: &str) {
        let status = self.space.0.command("tools", self.base().join(name)).status().unwrap();
        assert!(status.success(), "{name}: {status}");
    }

    fn add_pod(&self, name: &str) {
        let container = match name {
            "web" => {
                json!({"name": "main", "image": images::WEB, "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}})
            }
            // Counts aloud, so that a line that is lost is seen.
            _ => {
                let count = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.5; done";
                json!({"name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", count]})
            }
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}});
        fs::write(kubelet::manifests(&self.space.0).join(format!("{name}.json")), pod.to_string()).unwrap();
    }

    /// Waits until the node's own pods are ready on this runtime, and asserts that the other one has nothing of them.
    pub fn is_on(&self, kind: Kind) {
        self.wait(&format!("the pods are ready on {kind}"), LIMIT, || {
            let list = http::json(&self.space.0, READ_ONLY, "/pods").map_err(|e| e.to_string())?;
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            let on = |pod: &Value| {
                let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
                id.starts_with(&format!("{kind}://")) && is_ready(pod)
            };
            if pods.len() == PODS.len() && pods.iter().all(on) { Ok(()) } else { Err(list.to_string()) }
        });
        let other = match kind {
            Kind::Berth => Some(self.containerd.endpoint()),
            Kind::Containerd => self.root().join("run/berth.sock").exists().then(|| self.socket()),
        };
        if let Some(other) = other {
            let pods = runtime::crictl(&self.space.0, &other, &["pods", "-q"]);
            let pods = match kind {
                Kind::Berth => pods.unwrap(),
                // Its socket may be left of a daemon that was killed.
                Kind::Containerd => pods.unwrap_or_default(),
            };
            assert_eq!(pods.trim(), "", "the other runtime has pods of the kubelet's");
        }
    }

    pub fn wait<T>(&self, what: &str, limit: Duration, condition: impl FnMut() -> Result<T, String>) -> T {
        wait_for(&self.space, what, limit, condition)
    }

    /// `berth adopt WORDS`.
    pub fn adopt(&self, words: &[&str]) -> Command {
        self.berth(&[&["adopt"], words].concat())
    }

    /// `berth WORDS`.
    pub fn berth(&self, words: &[&str]) -> Command {
        let mut command = self.space.0.command("tools", programs::berth("berth"));
        command.arg("--root").arg(self.root()).args(words).stdin(Stdio::null());
        command
    }

    /// The words that take this node over.
    pub fn start_words(&self) -> Vec<String> {
        let base = self.base().display();
        ["start", "--without-grant", "--deadline=100s", "-o=json"]
            .map(str::to_owned)
            .into_iter()
            .chain([
                format!("--prefix={base}/opt"),
                format!("--kubelet-stop={base}/stop-kubelet"),
                format!("--kubelet-start={base}/start-kubelet"),
            ])
            .collect()
    }

    /// Takes the node over, or fails the case.
    pub fn take_over(&self) -> Value {
        let words = self.start_words();
        self.done(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Gives it back, or fails the case.
    pub fn give_back(&self) -> Value {
        self.done(&["return", "--without-grant", "-o", "json"])
    }

    fn done(&self, words: &[&str]) -> Value {
        let output = self.adopt(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}\n{}", told(&output), self.space.diagnosis());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn status(&self) -> Value {
        self.done(&["status", "-o", "json"])
    }

    /// What the daemon's supervisor says of itself and the daemon.
    pub fn supervised(&self) -> Value {
        serde_json::from_slice(&fs::read(self.root().join("run/supervise.json")).unwrap()).unwrap()
    }

    /// Starts `berth adopt WORDS`, waits until it is at the place `DIRECTION/STEP/EDGE`, and kills it there.
    pub fn killed_at(&self, words: &[&str], place: &str) {
        let (mut child, hold) = self.held_at(words, place);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(hold).unwrap();
    }

    /// The same, and leaves it waiting there, until the file is removed.
    pub fn held_at(&self, words: &[&str], place: &str) -> (Child, PathBuf) {
        let hold = self.base().join("hold");
        let reached = self.base().join("hold.reached");
        fs::write(&hold, "").unwrap();
        let _ = fs::remove_file(&reached);
        let log = fs::File::create(self.base().join("logs/adopt.log")).unwrap();
        let mut command = self.adopt(words);
        command.env("BERTH_HOLD", format!("{place}={}", hold.display())).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        self.wait(&format!("it is at {place}"), SETTLED, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!(
                    "it ended with {status} before {place}: {}",
                    fs::read_to_string(self.base().join("logs/adopt.log")).unwrap()
                );
            }
            if reached.exists() { Ok(()) } else { Err("not yet".to_owned()) }
        });
        (child, hold)
    }

    /// Waits until nobody does anything any more, and gives the phase.
    pub fn settled(&self) -> String {
        self.wait("the operation is over", SETTLED, || {
            let status = self.status();
            let phase = status["phase"].as_str().unwrap_or_default().to_owned();
            let over = ["adopted", "returned", "not-adopted"].contains(&phase.as_str()) && status["holder"].is_null();
            if over { Ok(phase) } else { Err(status.to_string()) }
        })
    }

    /// Every file of the kubelet's, with its permissions, and the programs' directory: what must be as it was found.
    pub fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32, u32)> {
        let mut found = BTreeMap::new();
        for place in ["kubelet.json", "kubelet.d", "opt"] {
            collect(&self.base().join(place), &mut found);
        }
        found
    }

    /// Processes of Berth in this node.
    pub fn daemons(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
        let names =
            entries.filter(|p| self.space.0.owns_process(p)).filter_map(|p| fs::read_to_string(p.join("comm")).ok());
        names
            .map(|name| name.trim().to_owned())
            .filter(|name| name.starts_with("berth") && name != "berth-test-regi")
            .collect()
    }

    /// Nothing of Berth runs or is installed.
    pub fn is_untouched(&self, before: &BTreeMap<PathBuf, (Vec<u8>, u32, u32)>) {
        assert_eq!(self.files().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(self.files() == *before, "files are not as they were");
        self.wait("Berth's processes, mounts and control groups are gone", SETTLED, || {
            let left: Vec<_> =
                [self.daemons(), self.mounts_of_berth(), self.groups_of_berth()].into_iter().flatten().collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    /// Mounts below Berth's root, in the node.
    fn mounts_of_berth(&self) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.space.0.holder())).unwrap();
        let root = format!("{}/", self.root().display());
        table.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect()
    }

    /// How the names of control groups begin that Berth makes for this root.
    fn group_of_berth(&self) -> String {
        format!("berth-{:08x}", fnv1a(self.root().as_os_str().as_encoded_bytes()))
    }

    /// Control groups of its processes and pods.
    fn groups_of_berth(&self) -> Vec<String> {
        let name = self.group_of_berth();
        let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let groups = trees.filter_map(|tree| fs::read_dir(tree).ok()).flat_map(Iterator::flatten);
        let names = groups.map(|group| group.path().display().to_string());
        names.filter(|path| path.rsplit('/').next().unwrap().starts_with(&name)).collect()
    }

    /// What a power cut does to everything of Berth's and to the kubelet: nobody is left who could do anything. `adopter` is whoever does
    /// the operation.
    pub fn power_cut(&self, adopter: &mut Child) {
        // In this order: supervisors start the others again.
        for word in ["supervise", "deadman", "serve"] {
            self.kill(word);
        }
        adopter.kill().unwrap();
        adopter.wait().unwrap();
        self.script("stop-kubelet");
        self.wait("nothing runs", SETTLED, || {
            let left = self.daemons();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        for group in self.groups_of_berth() {
            // Leaves first; the kernel takes the groups of a node that is off.
            let inner = fs::read_dir(&group).unwrap().flatten().filter(|entry| entry.path().is_dir());
            inner.for_each(|entry| drop(fs::remove_dir(entry.path())));
            let _ = fs::remove_dir(group);
        }
        let mounts = self.root().join("run/pods");
        self.tool("umount", &["-l", mounts.to_str().unwrap()]);
        self.forge_boot();
    }

    /// SIGKILL to the processes of the node's Berth that were started with this word, and to whoever comes in their place meanwhile, until there
    /// is none.
    pub fn kill(&self, word: &str) {
        self.wait(&format!("there is no {word}"), SETTLED, || {
            let found = self.processes(word);
            if found.is_empty() {
                return Ok(());
            }
            // One may have ended by itself since, such as a follower that has nobody to follow any more.
            let _ = Command::new("kill").arg("-9").args(&found).status().unwrap();
            Err(format!("{found:?}"))
        });
    }

    /// Processes of the node's Berth that were started with this word.
    pub fn processes(&self, word: &str) -> Vec<String> {
        let entries = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
        let ours = entries.filter(|path| self.space.0.owns_process(path)).filter(|path| {
            let words = fs::read(path.join("cmdline")).unwrap_or_default();
            let mut words = words.split(|b| *b == 0);
            words.next().is_some_and(|program| program.ends_with(b"/berth")) && words.any(|w| w == word.as_bytes())
        });
        ours.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// Has the journal be one of another boot.
    fn forge_boot(&self) {
        let path = self.root().join("lib/adopt/journal");
        let text = fs::read_to_string(&path).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let lines = text.lines().map(|line| match line.split_once(' ') {
            Some((sum, json)) if sum.len() == 8 => {
                let json = json.replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
                format!("{:08x} {json}\n", crc32(json.as_bytes()))
            }
            _ => format!("{line}\n"),
        });
        fs::write(&path, lines.collect::<String>()).unwrap();
    }

    /// A path of the node, seen from outside of its mount namespace.
    pub fn inside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.space.0.holder(), path.display()))
    }

    /// Runs a program in the node; whether it succeeded.
    pub fn tool(&self, program: &str, words: &[&str]) -> bool {
        self.space.0.command("tools", program).args(words).status().unwrap().success()
    }

    /// The kubelet stands still (SIGSTOP).
    pub fn hold_kubelet(&self) {
        let pid = fs::read_to_string(self.base().join("kubelet.pid")).unwrap();
        assert!(self.tool("kill", &["-STOP", pid.trim()]));
    }

    /// Runs a pod on containerd as a kubelet does that has it from an API server.
    pub fn run_on_containerd(&self, name: &str, image: &str) {
        let labels = json!({"io.kubernetes.pod.uid": name, "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default"});
        let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "attempt": 0}, "labels": labels,
            "annotations": {"kubernetes.io/config.source": "api"}, "linux": {}});
        let container = json!({"metadata": {"name": "main"}, "image": {"image": image}, "labels": labels, "linux": {}});
        let place = |what: &str, text: &Value| {
            let path = self.base().join(format!("{name}-{what}.json"));
            fs::write(&path, text.to_string()).unwrap();
            path.display().to_string()
        };
        let (container, pod) = (place("container", &container), place("pod", &pod));
        runtime::crictl(&self.space.0, &self.containerd.endpoint(), &["run", "--no-pull", &container, &pod]).unwrap();
    }

    /// What crictl says, asked of Berth.
    pub fn crictl_on_berth(&self, words: &[&str]) -> Result<String, String> {
        runtime::crictl(&self.space.0, &self.socket(), words)
    }

    /// Container and process of the pod `shell`, on Berth.
    pub fn shell(&self) -> (String, String) {
        let list = http::json(&self.space.0, READ_ONLY, "/pods").unwrap();
        let pods = list["items"].as_array().unwrap();
        let pod = pods.iter().find(|pod| pod["metadata"]["name"].as_str().unwrap().starts_with("shell")).unwrap();
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        let id = id.strip_prefix("berth://").unwrap().to_owned();
        // A daemon that has just been started serves some moments later.
        let inspected = self.wait("Berth knows the container", LIMIT, || self.crictl_on_berth(&["inspect", &id]));
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        (id, inspected["info"]["pid"].to_string())
    }

    /// Addresses of the node's own pods, as the kubelet has them.
    pub fn addresses(&self) -> Vec<String> {
        let list = http::json(&self.space.0, READ_ONLY, "/pods").unwrap();
        let pods = list["items"].as_array().unwrap();
        pods.iter().map(|pod| pod["status"]["podIP"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Numbers of its log, of this start, without a gap; how many.
    pub fn counted(&self) -> usize {
        let dirs = fs::read_dir(self.space.0.pod_logs()).unwrap().flatten().map(|entry| entry.path());
        let dir = dirs.into_iter().find(|dir| dir.to_str().unwrap().contains("_shell-")).unwrap();
        let logs = fs::read_dir(dir.join("main")).unwrap().flatten().map(|entry| entry.path());
        let newest = logs.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
        let text = fs::read_to_string(newest).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        // A pod of a file has one log for all its lives.
        let first = lines.iter().rposition(|line| line.ends_with(" 0\n")).unwrap();
        let lines = &lines[first..];
        for (n, line) in lines.iter().enumerate() {
            assert!(line.trim_end().ends_with(&format!(" {n}")), "line {n} of the log is {line:?}");
        }
        lines.len()
    }

    /// An exec session in the container, which answers words, and ends with 3 after `end`.
    pub fn session(&self, container: &str) -> Child {
        let endpoint = self.socket();
        let script = "while read w; do echo heard-$w; [ $w = end ] && exit 3; done";
        let mut command = self.space.0.command("tools", programs::path_from_env("BERTH_CRICTL"));
        command.args(["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "exec", "-i", container]);
        command.args(["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// SIGKILL to Berth's daemon, its supervisor, and whoever follows that.
    pub fn kill_berth(&self) {
        let daemon = self.supervised()["daemon"].as_i64().unwrap().to_string();
        self.kill("supervise");
        assert!(Command::new("kill").args(["-9", &daemon]).status().unwrap().success());
    }

    pub fn finish(self) {
        for pod in PODS {
            fs::remove_file(kubelet::manifests(&self.space.0).join(format!("{pod}.json"))).unwrap();
        }
        self.script("stop-kubelet");
        self.containerd.finish(&self.space.0);
        if let Some(registry) = self.registry {
            registry.kill();
        }
        self.space.0.finish();
    }
}

/// What a program wrote.
pub fn told(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn collect(path: &Path, found: &mut BTreeMap<PathBuf, (Vec<u8>, u32, u32)>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let bytes = if meta.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    found.insert(path.to_owned(), (bytes, meta.mode(), meta.uid()));
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), found));
    }
}

/// CRC-32 of zlib: the journal's.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

/// FNV-1a, 32 bits: what Berth's names on a node end with.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}
