//! SELinux as a node has it: Debian's policy, labels of processes, root file systems, shared files and volumes, and a denial
//! between two pods. Runs in a boot of its own of the guest tier. Labels are read from /proc and from the files by the test.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::refused;
use crate::daemon::requests::{bind, pod_security, security};
use crate::daemon::{Cri, Node, host, pod, shell};
use crate::packages;
use crate::packages::Tool;
use berth_proto::cri::{ContainerConfig, IdMapping, NamespaceMode, PodSandboxConfig, SeLinuxOption, UserNamespace};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tonic::Code;

const PROCESS: &str = "system_u:system_r:container_t:";
/// Domain of container runtimes in Debian's policy.
const ENGINE: &str = "system_u:system_r:container_engine_t";
const FILE: &str = "system_u:object_r:container_file_t:";
/// How often the policy is enforced for a moment at most.
const ROUNDS: usize = 15;
/// Notes again and again whether the volume can be read.
const READER: &str = "while :; do cat /data/file >/dev/null 2>&1; echo $? >> /tmp/codes; sleep 0.05; done";

/// The kernel enforces for all or for none.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

fn process_label(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    text.trim_end_matches(['\0', '\n']).to_owned()
}

fn file_label(path: impl AsRef<Path>) -> String {
    let mut label = [0; 512];
    let path = path.as_ref();
    let read = rustix::fs::lgetxattr(path, c"security.selinux", &mut label[..]);
    let length = read.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned()
}

/// The kernel enforces its policy until this is dropped, also when the test fails meanwhile.
struct Enforcing;

impl Enforcing {
    fn start() -> Self {
        std::fs::write("/sys/fs/selinux/enforce", "1").unwrap();
        Self
    }
}

impl Drop for Enforcing {
    fn drop(&mut self) {
        let _ = std::fs::write("/sys/fs/selinux/enforce", "0");
    }
}

fn options(config: &mut ContainerConfig, user: &str, role: &str, kind: &str, level: &str) {
    let [user, role, kind, level] = [user, role, kind, level].map(str::to_owned);
    security(config).selinux_options = Some(SeLinuxOption { user, role, r#type: kind, level });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_selinux_pods_have_levels_of_their_own() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let (data, other) = (node.base().join("data"), node.base().join("other"));
    for dir in [&data, &other] {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join("file"), "secret").unwrap();
    }
    std::os::unix::fs::symlink("/etc/hostname", data.join("link")).unwrap();
    let (before, outside) = (file_label(other.join("file")), file_label("/etc/hostname"));
    let (first, second) = (pod(&node, "first"), pod(&node, "second"));
    let (one, two) = (node.cri().run(&first).await, node.cri().run(&second).await);

    let mut owner = shell(&node, "owner", READER);
    owner.mounts = vec![bind(&data, "/data"), bind(&other, "/other")];
    owner.mounts[0].selinux_relabel = true;
    let owner = node.cri().launch(&one, &owner, &first).await;
    let beside = node.cri().launch(&one, &shell(&node, "beside", "sleep 1000"), &first).await;
    let mut stranger = shell(&node, "stranger", READER);
    stranger.mounts = vec![bind(&data, "/data")];
    let stranger = node.cri().launch(&two, &stranger, &second).await;

    let (pid, strangers) = (node.cri().pid(&owner).await, node.cri().pid(&stranger).await);
    let label = process_label(pid);
    let level = label.strip_prefix(PROCESS).unwrap_or_else(|| panic!("{label}")).to_owned();
    assert!(level.starts_with("s0:c") && level.contains(",c"), "{level}");
    assert_eq!(process_label(node.cri().pid(&beside).await), label, "containers of a pod share a level");
    let theirs = process_label(strangers);
    assert!(theirs.starts_with(PROCESS) && theirs != label, "{theirs}");
    assert_eq!(node.cri().sh(&owner, "cat /proc/self/attr/current | tr -d '\\0'").await.trim_end_matches('\0'), label);
    assert_eq!(node.cri().inspect(&owner).await["record"]["labels"]["selinux"], label.as_str());

    let file = format!("{FILE}{level}");
    for path in ["/", "/bin/busybox", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/etc/resolv.conf", "/etc/hosts"] {
        assert_eq!(file_label(format!("/proc/{pid}/root{path}")), file, "{path}");
    }
    assert_eq!((file_label(&data), file_label(data.join("file"))), (file.clone(), file.clone()));
    assert_eq!(file_label(data.join("link")), file, "a link is labelled itself");
    assert_eq!(file_label("/etc/hostname"), outside, "and not followed");
    assert_eq!(file_label(other.join("file")), before, "a volume is relabelled only where that is asked for");

    let codes = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/root/tmp/codes")).unwrap_or_default();
    let denied = || codes(strangers).lines().filter(|c| *c == "1").count();
    // Again where the machine has stood still meanwhile.
    for _ in 0..ROUNDS {
        let enforcing = Enforcing::start();
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(enforcing);
        if denied() > 5 && codes(pid).lines().count() > 5 {
            break;
        }
    }
    assert!(codes(pid).lines().count() > 5 && codes(pid).lines().all(|c| c == "0"), "{}", codes(pid));
    assert!(denied() > 5, "the other pod must not read it while the policy is enforced: {}", codes(strangers));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_selinux_options_are_applied_or_refused() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let mut sandbox = pod(&node, "options");
    let level = SeLinuxOption { level: "s0:c7,c8".into(), ..Default::default() };
    pod_security(&mut sandbox).selinux_options = Some(level);
    let id = node.cri().run(&sandbox).await;

    let plain = node.cri().launch(&id, &shell(&node, "plain", "sleep 1000"), &sandbox).await;
    assert_eq!(process_label(node.cri().pid(&plain).await), format!("{PROCESS}s0:c7,c8"), "the pod's level");
    let mut whole = shell(&node, "whole", "sleep 1000");
    options(&mut whole, "system_u", "system_r", "container_t", "s0:c3,c4");
    let whole = node.cri().launch(&id, &whole, &sandbox).await;
    let pid = node.cri().pid(&whole).await;
    assert_eq!(process_label(pid), format!("{PROCESS}s0:c3,c4"));
    assert_eq!(file_label(format!("/proc/{pid}/root/")), format!("{FILE}s0:c3,c4"));

    for (n, [user, role, kind, level]) in [
        ["", "", "no_such_type_t", ""],
        ["no_such_user_u", "", "", ""],
        ["", "no_such_role_r", "", ""],
        ["", "", "", "s99:c1"],
        ["", "", "container_t:s0", ""],
    ]
    .into_iter()
    .enumerate()
    {
        let mut bad = shell(&node, &format!("bad{n}"), "sleep 1000");
        options(&mut bad, user, role, kind, level);
        let word = [user, role, kind, level].concat();
        refused(node.cri().try_create(&id, &bad, &sandbox).await, Code::InvalidArgument, &["selinux_options", &word]);
    }
    let mut own = shell(&node, "own", "sleep 1000");
    own.mounts = vec![bind("/etc", "/host-etc")];
    own.mounts[0].selinux_relabel = true;
    let own = node.cri().create(&id, &own, &sandbox).await;
    refused(node.cri().try_start(&own).await, Code::InvalidArgument, &["/etc", "relabelled"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_selinux_privileged_has_the_daemons_label() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let mut sandbox = pod(&node, "mighty");
    pod_security(&mut sandbox).privileged = true;
    let mut config = shell(&node, "mighty", "sleep 1000");
    security(&mut config).privileged = true;
    let id = node.cri().run(&sandbox).await;
    let container = node.cri().launch(&id, &config, &sandbox).await;
    assert_eq!(process_label(node.cri().pid(&container).await), process_label(node.pid()));
    node.finish().await;
}

/// What the kernel, systemd and its bus have denied the daemon, its monitors and init so far.
fn denials() -> Vec<String> {
    let told = host("dmesg", &["--notime"]);
    let ours = |line: &&str| line.contains("denied") && line.contains(&format!("scontext={ENGINE}"));
    told.lines().filter(ours).map(str::to_owned).collect()
}

/// A node as an administrator makes it: the package, a network, and the policy enforced.
async fn packaged() -> Cri {
    packages::node::prepare();
    packages::Deb.install(1);
    std::fs::write("/etc/berth/60-network.yaml", packages::node::NETWORK).unwrap();
    packages::node::systemctl(&["restart", "berth.service"]);
    packages::node::answers();
    assert_eq!(process_label(packages::node::daemon()), format!("{ENGINE}:s0"));
    for (path, kind) in [
        ("/usr/libexec/berth/berth-init", "container_engine_exec_t"),
        ("/etc/berth/50-node.yaml", "container_config_t"),
        ("/var/lib/berth", "container_var_lib_t"),
        ("/run/berth", "container_runtime_t"),
    ] {
        assert_eq!(file_label(path).split(':').nth(2), Some(kind), "{path}");
    }
    Cri::connect(Path::new("/run/berth/berth.sock")).await.unwrap()
}

/// The package's daemon has the domain of container runtimes and needs nothing beyond it while the policy is enforced: pods start, are
/// entered, outlive the daemon and end; a container reads neither another pod's files nor the runtime's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_selinux_is_enforced_around_the_package() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let cri = packaged().await;
    // Where the kubelet has volumes: the policy lets runtimes label what is there.
    let data = Path::new("/var/lib/kubelet/pods/uid/volumes/data");
    std::fs::create_dir_all(data).unwrap();
    std::fs::write(data.join("file"), "secret").unwrap();
    let sandbox = |name: &str| {
        let log_directory = format!("/var/log/pods/{name}");
        std::fs::create_dir_all(&log_directory).unwrap();
        host("restorecon", &["-R", "/var/log/pods"]);
        PodSandboxConfig { log_directory, ..pod(&node, name) }
    };
    host("restorecon", &["-R", "/var/lib/kubelet"]);
    let before = denials().len();
    let enforcing = Enforcing::start();
    cri.pull(&node.tools()).await;
    let (first, second) = (sandbox("first"), sandbox("second"));
    let (one, two) = (cri.run(&first).await, cri.run(&second).await);
    let mut owner = shell(&node, "owner", "echo started; sleep 1000");
    owner.mounts = vec![bind(data, "/data")];
    owner.mounts[0].selinux_relabel = true;
    let owner = cri.launch(&one, &owner, &first).await;
    let mut hostile = shell(&node, "hostile", "sleep 1000");
    hostile.mounts = vec![bind(data, "/data"), bind("/run/berth", "/sockets")];
    let hostile = cri.launch(&two, &hostile, &second).await;

    let (own, theirs) = (process_label(cri.pid(&owner).await), process_label(cri.pid(&hostile).await));
    assert!(own.starts_with(PROCESS) && theirs.starts_with(PROCESS) && own != theirs, "{own}, {theirs}");
    assert_eq!(cri.sh(&owner, "cat /proc/self/attr/current | tr -d '\\0'").await.trim_end_matches('\0'), own);
    assert_eq!(packages::node::exec(&owner, &["cat", "/data/file"]), "secret");
    let tries = ["cat /data/file", "echo x > /data/new", "rm /data/file", "ls /sockets"];
    let mut answers = Vec::new();
    for attempt in tries {
        let (code, said) = cri.code(&hostile, attempt).await;
        answers.push((attempt, code != 0 && said.contains("Permission denied"), said));
    }
    assert!(answers.iter().all(|(_, denied, _)| *denied), "{answers:#?}");
    let mut mighty = sandbox("mighty");
    pod_security(&mut mighty).privileged = true;
    let three = cri.run(&mighty).await;
    let mut config = shell(&node, "mighty", "sleep 1000");
    security(&mut config).privileged = true;
    let privileged = cri.launch(&three, &config, &mighty).await;
    assert_eq!(process_label(cri.pid(&privileged).await), "system_u:system_r:spc_t:s0");
    let mut mapped = sandbox("mapped");
    let ids = IdMapping { host_id: 1_000_000, container_id: 0, length: 65536 };
    pod_security(&mut mapped).namespace_options.as_mut().unwrap().userns_options =
        Some(UserNamespace { mode: NamespaceMode::Pod as i32, uids: vec![ids], gids: vec![ids] });
    let four = cri.run(&mapped).await;
    let inside = cri.launch(&four, &shell(&node, "inside", "sleep 1000"), &mapped).await;
    assert_eq!(cri.sh(&inside, "cut -d: -f3 /proc/self/attr/current").await, "container_t");

    packages::node::systemctl(&["restart", "berth.service"]);
    packages::node::answers();
    let cri = Cri::connect(Path::new("/run/berth/berth.sock")).await.unwrap();
    assert_eq!(cri.sh(&owner, "cat /data/file").await, "secret");
    assert_eq!(daemon::client::log_text("/var/log/pods/first/owner.log"), "started\n");
    cri.try_stop(&owner, 0).await.unwrap();
    assert_eq!(cri.exited(&owner).await.exit_code, 137);
    for id in [&one, &two, &three, &four] {
        cri.try_remove_pod(id).await.unwrap();
    }
    drop(enforcing);
    let denied = &denials()[before..];
    assert!(denied.is_empty(), "the policy denied what a runtime needs:\n{}", denied.join("\n"));
    packages::Deb.purge();
    node.finish().await;
}
