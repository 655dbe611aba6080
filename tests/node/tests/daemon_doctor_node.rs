//! `berth doctor` on nodes that run out of something, have a broken network, or a kubelet that was told otherwise. What belongs to the
//! whole machine is broken in namespaces and control groups of the test's own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::doctor::{command, doctor, report};
use crate::daemon::node::Setup;
use crate::daemon::{Node, container, host, pod};
use crate::network::Netns;
use berth_node_tests::{programs, unique};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory with a file system of its own, which goes with it.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        host("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()]);
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_and_large_logs() {
    // A root whose daemon is down: the disks tell by themselves.
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    let ask = || {
        let mut ask = Command::new(programs().join("berth"));
        ask.arg("--root").arg(base.path()).args(["doctor", "-o", "json", "disk"]);
        report(ask)
    };
    {
        let lib = Mount::tmpfs(base.path().join("lib"), "size=4m");
        std::fs::write(lib.0.join("ballast"), vec![1; 3_700_000]).unwrap();
        ask().finding("disk-low", &["/lib", "left"]);
        std::fs::write(lib.0.join("more"), vec![1; 450_000]).unwrap();
        ask().finding("disk-full", &["/lib", "left"]);
    }
    {
        let lib = Mount::tmpfs(base.path().join("lib"), "size=4m,nr_inodes=20");
        let mut made = 0;
        while std::fs::write(lib.0.join(made.to_string()), "").is_ok() {
            made += 1;
        }
        let found = ask();
        found.finding("inodes-full", &["inodes left"]);
        assert!(!found.ids().contains(&"disk-full"));
    }
    let node = Node::with_tools().await;
    let sandbox = pod(&node, "logs");
    let id = node.cri().run(&sandbox).await;
    let app = node.cri().launch(&id, &container(&node, "chatty", &["sleep", "1000"]), &sandbox).await;
    let log = node.cri().status(&app).await.unwrap().log_path;
    assert!(!doctor(&node, &["disk"]).ids().contains(&"log-big"));
    std::fs::File::options().append(true).open(&log).unwrap().set_len(300 << 20).unwrap();
    doctor(&node, &["disk"]).finding("log-big", &["default/logs/chatty", "314.5 MB"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_limit_that_is_reached() {
    let base = Path::new("/sys/fs/cgroup");
    let unified = base.join("cgroup.controllers").exists();
    let group = if unified { base.to_owned() } else { base.join("pids") }.join(unique("berth-doctor-"));
    std::fs::create_dir(&group).unwrap();
    std::fs::write(group.join("pids.max"), "20").unwrap();
    let node = Node::new().await;
    let inside = |program: &mut Command| -> Child {
        let child = program.stdin(Stdio::null()).spawn().unwrap();
        std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    };
    let mut crowd: Vec<Child> = (0..16).map(|_| inside(Command::new("sleep").arg("1000"))).collect();
    let mut ask = command(&node, &["pids"]);
    // The doctor enters the group by itself, before it looks.
    let words: Vec<String> =
        std::iter::once(ask.get_program()).chain(ask.get_args()).map(|w| w.to_string_lossy().into_owned()).collect();
    ask = Command::new("sh");
    ask.args(["-c", "echo $$ > \"$0/cgroup.procs\"; shift 0; \"$@\" & wait $!"]).arg(&group).args(&words);
    let found = report(ask);
    found.finding("pids-limit", &[&group.display().to_string(), "of 20"]);
    for child in &mut crowd {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    node.finish().await;
    daemon::eventually("the group is empty", async || std::fs::remove_dir(&group).ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_run_out() {
    let mut node = Node::new().await;
    assert!(node.terminate().await.success());
    let document = std::fs::read_to_string(node.root().join("etc/50-node.yaml")).unwrap();
    let subnet = document.lines().find_map(|l| l.trim().strip_prefix("subnet: ")).unwrap();
    node.document("50-node.yaml", &document.replace(subnet, &subnet.replace("/24", "/29")));
    node.start().await;
    let cri = node.cri();
    for n in 0..5 {
        assert!(!doctor(&node, &["addresses"]).ids().contains(&"addresses-exhausted"));
        cri.run(&pod(&node, &format!("p{n}"))).await;
    }
    doctor(&node, &["addresses"]).finding("addresses-exhausted", &["5 of 5 ipv4"]);
    assert_eq!(node.figure("berth_address_pool_used{family=\"ipv4\"}"), 5.0);
    cri.try_run(&pod(&node, "one-more")).await.unwrap_err();
    doctor(&node, &["starts"]).finding("start-failed", &["default/one-more", "addresses"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_broken() {
    let node = Node::new().await;
    host("nft", &["delete", "table", "ip", node.name()]);
    let found = doctor(&node, &["network"]);
    found.finding("network-not-ready", &[node.name(), "does not exist"]);

    // The node's own network, as far as it is the whole machine's: in namespaces of the test's own, with the daemon outside.
    let bridge = node.name().replace('-', "");
    let script = format!(
        "set -e; mount --make-rprivate /; mount -t sysfs sysfs /sys; echo 'nameserver 127.0.0.53' > {base}/resolv; mount --bind {base}/resolv /etc/resolv.conf; \
         echo 0 > /proc/sys/net/ipv4/ip_forward; ip link add {bridge} type bridge; ip link set {bridge} mtu 9000; ip link add up0 type veth peer name up1; ip link set up1 up; \
         ip addr add 192.0.2.2/24 dev up0; ip link set up0 up mtu 1400; ip route add default via 192.0.2.1; \
         exec \"$@\"",
        base = node.base().display()
    );
    let inner = command(&node, &["network"]);
    let mut ask = Command::new("unshare");
    ask.args(["--net", "--mount", "sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let found = report(ask);
    found.finding("forwarding-off", &["ip_forward is 0"]);
    found.finding("mtu-high", &["9000", "up0 is 1400"]);
    found.finding("resolv-conf", &["127.0.0.53"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firewall_that_drops_what_is_forwarded() {
    let netns = Netns::new();
    netns.sh("ip link set lo up");
    let node = Node::with(Setup { netns: Some(netns.path()), ..Setup::default() }).await;
    assert!(!doctor(&node, &["network"]).ids().contains(&"forward-drop"));
    netns.nft("add table ip other");
    netns.nft("add chain ip other walls { type filter hook forward priority 0; policy drop; }");
    // The daemon looks every ten seconds.
    daemon::eventually("the daemon sees it", async || {
        doctor(&node, &["network"]).ids().contains(&"forward-drop").then_some(())
    })
    .await;
    let found = doctor(&node, &["network"]);
    let fix = found.finding("forward-drop", &["ip other walls", "policy is drop"])["fix"].as_str().unwrap().to_owned();
    // What it says to do, mends.
    for command in fix.split(" && ") {
        netns.nft(command.strip_prefix("nft ").unwrap());
    }
    daemon::eventually("all is well again", async || {
        (!doctor(&node, &["network"]).ids().contains(&"forward-drop")).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cni_without_configuration_or_programs() {
    // A root of nobody: without documents the network is CNI's.
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    let ask = || {
        let script = "set -e; mount --make-rprivate /; mkdir -p /opt/cni/bin /usr/lib/cni /usr/libexec/cni; \
             for d in /opt/cni/bin /usr/lib/cni /usr/libexec/cni; do mount -t tmpfs tmpfs $d; done; exec \"$@\"";
        let mut ask = Command::new("unshare");
        ask.args(["--mount", "sh", "-c", script, "sh"]).arg(programs().join("berth"));
        ask.arg("--root").arg(base.path()).args(["doctor", "-o", "json", "network"]);
        report(ask)
    };
    let configs = base.path().canonicalize().unwrap().join("etc/cni/net.d");
    ask().finding("cni-config-missing", &[configs.to_str().unwrap()]);
    std::fs::create_dir_all(&configs).unwrap();
    let list =
        r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"no-such-plugin","ipam":{"type":"no-such-ipam"}}]}"#;
    std::fs::write(configs.join("10-n.conflist"), list).unwrap();
    let found = ask();
    found.finding("cni-plugin-missing", &["no-such-plugin", "no-such-ipam", "/opt/cni/bin", "/usr/libexec/cni"]);
    assert!(!found.ids().contains(&"cni-config-missing"));
}

/// Nine of ten addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_will_run_out() {
    let number = std::process::id() % 200;
    let document = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: node}}\nspec: {{network: {{mode: Builtin, \
         subnet: 10.123.{number}.0/24, rangeStart: 10.123.{number}.10, rangeEnd: 10.123.{number}.19}}}}\n"
    );
    let node = Node::with(Setup { document: Some(document), netns: None }).await;
    for n in 0..8 {
        node.cri().run(&pod(&node, &format!("p{n}"))).await;
    }
    assert!(!doctor(&node, &["addresses"]).ids().iter().any(|id| id.starts_with("addresses-")));
    node.cri().run(&pod(&node, "ninth")).await;
    doctor(&node, &["addresses"]).finding("addresses-low", &["9 of 10 ipv4"]);
    node.finish().await;
}

/// What a machine has or has not is changed in a mount namespace: an old kernel, one without overlayfs, control groups without controllers,
/// and the layout of v1. (What a machine runs out of is caused for real in the guest, `guest_doctor`.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernels_and_control_groups_that_lack_something() {
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    let ask = |script: &str, check: &str| {
        let script = format!("set -e; mount --make-rprivate /; cd '{}'; {script}; exec \"$@\"", base.path().display());
        let mut ask = Command::new("unshare");
        ask.args(["--mount", "sh", "-c", &script, "sh"]).arg(programs().join("berth"));
        ask.arg("--root").arg(base.path()).args(["doctor", "-o", "json", check]);
        report(ask)
    };
    let old = "echo 5.10.0-9-amd64 > release; mount --bind release /proc/sys/kernel/osrelease";
    ask(old, "kernel").finding("kernel-old", &["5.10", "5.15"]);
    let without = "echo 5.99.0-none > release; mount --bind release /proc/sys/kernel/osrelease; \
                   grep -v overlay /proc/filesystems > systems; mount --bind systems /proc/filesystems";
    ask(without, "kernel").finding("kernel-feature", &["overlay file system"]);
    let modules = "mount -t tmpfs none /sys/kernel/security; echo lockdown,apparmor > /sys/kernel/security/lsm";
    ask(modules, "kernel").finding("lsm", &["apparmor"]);
    let plain = "mount -t tmpfs none /sys/fs/cgroup; echo cpu memory > /sys/fs/cgroup/cgroup.controllers";
    let found = ask(plain, "cgroups");
    found.finding("controller-missing", &["2 of 4", "cpuset, pids", "v2"]);
    assert!(!found.ids().contains(&"cgroup-v1"));
    ask("mount -t tmpfs none /sys/fs/cgroup", "cgroups").finding("cgroup-v1", &["v1"]);
}

/// A process that is called kubelet and has a kubelet's command line; its settings are real files.
struct LookAlike(Child);

impl LookAlike {
    fn start(dir: &Path, config: Option<&str>, flags: &[&str]) -> Self {
        let program = dir.join("kubelet");
        if !program.exists() {
            std::fs::copy("/bin/bash", &program).unwrap();
        }
        let file = dir.join("kubelet.yaml");
        let _ = std::fs::remove_file(&file);
        if let Some(config) = config {
            std::fs::write(&file, config).unwrap();
        }
        let mut command = Command::new(program);
        command.args(["-c", "read -r _", "kubelet"]).arg(format!("--config={}", file.display())).args(flags);
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for LookAlike {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelets_that_were_told_otherwise() {
    let node = Node::new().await;
    let dir = node.base().join("kubelet-dir");
    std::fs::create_dir(&dir).unwrap();
    let endpoint = format!("unix://{}", node.socket().display());
    let good =
        format!("kind: KubeletConfiguration\ncontainerRuntimeEndpoint: {endpoint}\nfailSwapOn: false\nmaxPods: 100\n");
    {
        let _sound = LookAlike::start(&dir, Some(&good), &[]);
        let found = doctor(&node, &["kubelet", "memory"]);
        assert!(!found.ids().iter().any(|id| id.starts_with("kubelet")), "{:#?}", found.findings);
    }
    {
        let config = format!("{good}cgroupDriver: systemd\nresolvConf: {}/gone\n", dir.display());
        let _one = LookAlike::start(
            &dir,
            Some(&config),
            &["--max-pods", "300", "--image-service-endpoint=unix:///run/x.sock"],
        );
        let found = doctor(&node, &["kubelet", "cgroups"]);
        found.finding("cgroup-driver", &["cgroupfs", "systemd"]);
        found.finding("kubelet-resolv-conf", &["gone"]);
        found.finding("kubelet-max-pods", &["300 pods", "253 ipv4"]);
        found.finding("kubelet-image-endpoint", &["/run/x.sock"]);
    }
    let other = LookAlike::start(&dir, None, &["--container-runtime-endpoint=unix:///run/containerd/containerd.sock"]);
    let found = doctor(&node, &["kubelet", "--kubelet", &other.0.id().to_string()]);
    found.finding("kubelet-endpoint", &["containerd.sock"]);
    found.finding("kubelet-config", &["No such file"]);
    drop(other);
    node.finish().await;
}
