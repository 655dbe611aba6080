//! How a node is laid out: the kubelet's unit and files as kubeadm has them or as others do, containerd, static pods.
use super::{CONTAINERD, systemctl};
use berth_node_tests::path_from_env;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const UNITS: &str = "/etc/systemd/system";
/// The kubelet's `staticPodPath`.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Name of the node's own static pod.
pub(super) const POD: &str = "web";
/// Below these lies whatever says to the kubelet which runtime it is to use.
const PLACES: [&str; 6] = [
    "/etc/systemd/system",
    "/etc/kubernetes",
    "/etc/default/kubelet",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/opt",
];
const READ_ONLY: &str = "127.0.0.1:10255";
/// kubeadm's own drop-in (kubernetes/release, cmd/krel/templates/latest/kubeadm), without the kubeconfigs of a cluster.
const KUBEADM: &str = "[Service]\n\
    Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n\
    EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
    EnvironmentFile=-/etc/default/kubelet\n\
    ExecStart=\n\
    ExecStart=KUBELET $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n";

/// Whose way of doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The endpoint is in kubeadm-flags.env, which a drop-in names.
    Kubeadm,
    /// The endpoint is a flag in the unit itself.
    Unit,
}

impl Layout {
    /// Writes the kubelet's unit and files.
    pub(super) fn write(self) {
        let kubelet = path_from_env("BERTH_KUBERNETES").join("kubelet").display().to_string();
        let endpoint = format!("--container-runtime-endpoint=unix://{CONTAINERD}");
        let line = match self {
            Self::Kubeadm => kubelet.clone(),
            Self::Unit => {
                format!("{kubelet} --config=/var/lib/kubelet/config.yaml \\\n  {endpoint} --hostname-override=node1")
            }
        };
        let unit = format!(
            "[Unit]\nDescription=kubelet: The Kubernetes Node Agent\n[Service]\nStandardError=append:/tmp/kubelet.log\n\
             ExecStart={line}\nRestart=always\nStartLimitInterval=0\nRestartSec=10\n[Install]\nWantedBy=multi-user.target\n"
        );
        write("/etc/systemd/system/kubelet.service", &unit, 0o644);
        if self == Self::Kubeadm {
            let drop_in = KUBEADM.replace("KUBELET $", &format!("{kubelet} $"));
            write("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", &drop_in, 0o644);
            let flags = format!("KUBELET_KUBEADM_ARGS=\"{endpoint} --hostname-override=node1\"\n");
            write("/var/lib/kubelet/kubeadm-flags.env", &flags, 0o644);
            write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n", 0o644);
        }
        write("/var/lib/kubelet/config.yaml", CONFIG, 0o600);
    }

    /// Takes them away.
    pub(super) fn remove(self) {
        for path in ["kubelet.service", "containerd.service"] {
            let _ = fs::remove_file(Path::new(UNITS).join(path));
        }
        let _ = fs::remove_dir_all("/etc/systemd/system/kubelet.service.d");
        for file in ["/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet"] {
            let _ = fs::remove_file(file);
        }
        systemctl(&["daemon-reload"]);
    }
}

const CONFIG: &str = "# as kubeadm writes it\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
    authentication:\n  anonymous:\n    enabled: true\n  webhook:\n    enabled: false\nauthorization:\n  mode: AlwaysAllow\n\
    cgroupDriver: systemd\nstaticPodPath: /etc/kubernetes/manifests\nresolvConf: /tmp/resolv.conf\n\
    failSwapOn: false\nreadOnlyPort: 10255\nfileCheckFrequency: 1s\nvolumePluginDir: /var/lib/kubelet/plugins-exec\n\
    evictionHard:\n  memory.available: 50Mi\n  nodefs.available: 1%\n  imagefs.available: 1%\n";

fn write(path: &str, text: &str, mode: u32) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// containerd with runc as systemd nodes have them. `pause` is what it runs for each pod.
pub(super) fn containerd(pause: &str) {
    let peers = path_from_env("BERTH_PEERS").display().to_string();
    let config = format!(
        "version = 3\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n[grpc]\naddress = \"{CONTAINERD}\"\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = \"{pause}\"\n\
         [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = [\"{peers}\"]\nconf_dir = \"/etc/containerd/net.d\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = \"{peers}/runc\"\nSystemdCgroup = true\n"
    );
    write("/etc/containerd/config.toml", &config, 0o644);
    let network = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.93.1.0/24"}]], "dataDir": "/run/cni-addresses"}}]}"#;
    write("/etc/containerd/net.d/10-pods.conflist", network, 0o644);
    let path = std::env::var("PATH").unwrap_or_default();
    let unit = format!(
        "[Service]\nEnvironment=PATH={peers}:{path}\nStandardError=append:/tmp/containerd.log\n\
         ExecStart={peers}/containerd --config /etc/containerd/config.toml\nType=notify\nDelegate=yes\nKillMode=process\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    write("/etc/systemd/system/containerd.service", &unit, 0o644);
}

/// Has the next boot begin as this one goes on: the services are wanted, and what they are started from is mounted before.
pub(super) fn at_boot() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let place = mount.split(' ').nth(4)?;
        (system.starts_with("hostfs ") && place != "/job").then(|| place.to_owned())
    };
    // A boot does not fail for want of one; the tests would.
    let line = |place: String| {
        format!(
            "none {place} hostfs ro,hostfs={place},nofail,x-systemd.before=containerd.service,x-systemd.before=kubelet.service 0 0\n"
        )
    };
    let table: String = mounts.lines().filter_map(place).map(line).collect();
    assert!(!table.is_empty(), "the programs are the host's: {mounts}");
    fs::write("/etc/fstab", table).unwrap();
    systemctl(&["enable", "containerd.service", "kubelet.service"]);
}

/// The node's own static pod: counts aloud, and serves.
pub(super) fn pod(image: &str) {
    let count = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done & exec /web";
    place(POD, "Always", &container("main", image, count));
}

/// Another static pod, which is not started again once it has ended.
pub(super) fn pod_for_once(name: &str, image: &str, script: &str) {
    // Another name than the counting container's, whose log is looked for by it.
    place(name, "Never", &container("once", image, script));
}

fn container(name: &str, image: &str, script: &str) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]})
}

fn place(name: &str, restarts: &str, container: &Value) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": restarts, "containers": [container]},
    });
    write(&manifest(name), &pod.to_string(), 0o644);
}

fn manifest(name: &str) -> String {
    format!("{MANIFESTS}/{name}.json")
}

/// Takes a static pod away.
pub(super) fn withdraw(name: &str) {
    fs::remove_file(manifest(name)).unwrap();
}

/// What the kubelet says of its pods; `None` where it does not answer.
pub(super) fn pods() -> Option<Value> {
    let mut stream = TcpStream::connect(READ_ONLY).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET /pods HTTP/1.0\r\nHost: {READ_ONLY}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Every file of [`PLACES`], with its permissions; of a link, where it leads.
pub(super) fn files() -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut found = BTreeMap::new();
    PLACES.iter().for_each(|place| collect(Path::new(place), &mut found));
    found
}

fn collect(path: &Path, found: &mut BTreeMap<PathBuf, (Vec<u8>, u32)>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let bytes = if meta.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else if meta.is_file() {
        fs::read(path).unwrap()
    } else {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), found));
        Vec::new()
    };
    found.insert(path.to_owned(), (bytes, meta.permissions().mode()));
}

/// The ends of all logs.
pub(super) fn logs() -> String {
    let journal = std::process::Command::new("journalctl").args(["-n", "60", "--no-pager", "-u", "berth*"]).output();
    let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let tails = ["/tmp/kubelet.log", "/tmp/containerd.log", "/tmp/adopt.log"].map(|file| {
        let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{file}:\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n"))
    });
    format!("{}\njournal:\n{journal}", tails.concat())
}
