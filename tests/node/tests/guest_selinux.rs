//! SELinux as a node has it: Debian's policy, labels of processes, root file systems, shared files and volumes, and a denial
//! between two pods. Runs in a boot of its own of the guest tier. Labels are read from /proc and from the files by the test.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

mod daemon;

use berth_proto::cri::{ContainerConfig, SeLinuxOption};
use daemon::client::refused;
use daemon::requests::{bind, pod_security, security};
use daemon::{Node, pod, shell};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tonic::Code;

const PROCESS: &str = "system_u:system_r:container_t:";
const FILE: &str = "system_u:object_r:container_file_t:";
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
    let enforcing = Enforcing::start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(enforcing);
    assert!(codes(pid).lines().count() > 5 && codes(pid).lines().all(|c| c == "0"), "{}", codes(pid));
    let denied = codes(strangers).lines().filter(|c| *c == "1").count();
    assert!(denied > 5, "the other pod must not read it while the policy is enforced: {}", codes(strangers));
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
