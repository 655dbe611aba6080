//! The packages on a machine with systemd, as an administrator uses them: installed, upgraded and downgraded under pods that go on,
//! removed, put back, purged. What was there before is there afterwards, and nothing else. Runs in the guest tier.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::packages;
use crate::packages::session::Session;
use crate::packages::{Tool, node, pods};
use berth_leaks::{Scope, Snapshot};
use std::path::Path;
use std::time::Duration;

/// How long the kernel and systemd get to take apart what was removed.
const SETTLE: Duration = Duration::from_secs(20);

/// Everything that an upgrade must leave as it is.
fn upgraded_under(tool: &dyn Tool, from: u32, to: u32, pod: &pods::Counting) {
    let mut session = Session::open(&pod.container);
    session.say("before");
    let (old, fingerprint, lines) = (node::daemon(), pod.fingerprint(), pod.counted());
    tool.install(to);
    assert_eq!(tool.release(), Some(to));
    assert_ne!(node::daemon(), old, "{from} to {to}: the daemon is replaced");
    node::answers();
    assert_eq!(pod.fingerprint(), fingerprint, "{from} to {to}: the pod goes on");
    session.say("after");
    assert_eq!(session.end(), 3, "its exit code comes through the old daemon's session");
    assert_eq!(node::exec(&pod.container, &["echo", "new"]), "new");
    pod.counts_on(lines);
}

fn a_package_from_begin_to_end(tool: &dyn Tool) {
    let images = node::Images::start();
    let before = Snapshot::take(&Scope::default()).unwrap();
    tool.install(1);
    tool.starts();
    node::answers();
    assert_eq!(node::systemctl(&["is-enabled", "berth.service"]), "enabled");
    // The node's own network, in a document beside the package's; and a change in the package's, which is kept.
    std::fs::write("/etc/berth/60-network.yaml", node::NETWORK).unwrap();
    let own = std::fs::read_to_string("/etc/berth/50-node.yaml").unwrap();
    let changed = own.replace("logLevel: Info", "logLevel: Debug");
    assert_ne!(own, changed);
    std::fs::write("/etc/berth/50-node.yaml", &changed).unwrap();
    node::systemctl(&["restart", "berth.service"]);
    let pod = pods::Counting::run(&images);

    upgraded_under(tool, 1, 2, &pod);
    upgraded_under(tool, 2, 1, &pod);
    assert_eq!(std::fs::read_to_string("/etc/berth/50-node.yaml").unwrap(), changed);
    // A daemon that was stopped on purpose stays so.
    node::systemctl(&["stop", "berth.service"]);
    tool.install(2);
    assert_eq!(node::state(), "inactive");
    node::systemctl(&["start", "berth.service"]);

    let fingerprint = pod.fingerprint();
    tool.remove();
    assert_eq!(node::state(), "inactive");
    assert!(!Path::new("/usr/bin/berth").exists() && !Path::new("/usr/libexec/berth/berth").exists());
    assert!(daemon::is_alive(fingerprint.pid), "pods go on when the package is removed");
    tool.install(2);
    tool.starts();
    node::answers();
    assert_eq!(pod.fingerprint(), fingerprint, "a daemon that is back finds them");

    tool.purge();
    std::fs::remove_file("/etc/berth/60-network.yaml").unwrap();
    let _ = std::fs::remove_file("/etc/berth/50-node.yaml.rpmsave");
    let _ = std::fs::remove_dir("/etc/berth");
    assert!(!daemon::is_alive(fingerprint.pid), "a purge ends the pods");
    for place in
        ["/etc/berth", "/var/lib/berth", "/run/berth", "/usr/libexec/berth", "/usr/lib/systemd/system/berth.service"]
    {
        assert!(!Path::new(place).exists(), "{place} is left");
    }
    assert_eq!(node::units(), "", "units are left");
    drop(images);
    let scope = Scope { roots: Vec::new(), words: vec!["berth".into()] };
    let leaks = berth_leaks::settle(&scope, &before, SETTLE).unwrap();
    assert!(leaks.is_empty(), "left over:\n{}", leaks.iter().map(|l| format!("  {l}\n")).collect::<String>());
}

/// On the machine of somebody who looks after a cluster: kubectl finds the program, its words and nothing of the node's.
fn the_plugin_is_where_kubectl_looks_for_it() {
    packages::plugin(&["--install", &packages::plugin_file(1)]);
    let completed = daemon::host("/usr/bin/kubectl_complete-berth", &["rollout", "pa"]);
    assert!(completed.starts_with("pause\t") && completed.ends_with(":4\n"), "{completed}");
    assert!(daemon::host("/usr/bin/kubectl-berth", &["--version"]).starts_with("kubectl"));
    let words = std::fs::read_to_string("/usr/share/bash-completion/completions/kubectl-berth").unwrap();
    assert!(words.contains("kubectl-berth") && words.contains("rollout"), "{words}");
    packages::plugin(&["--purge", "kubectl-berth"]);
    for place in ["/usr/bin/kubectl-berth", "/usr/bin/kubectl_complete-berth", "/usr/share/doc/kubectl-berth"] {
        assert!(!Path::new(place).exists(), "{place} is left");
    }
}

/// One test, as both packages bring the same service, and there is one dpkg.
#[test]
fn guest_packages_are_installed_upgraded_and_removed() {
    node::prepare();
    println!("-- plugin");
    the_plugin_is_where_kubectl_looks_for_it();
    println!("-- deb");
    a_package_from_begin_to_end(&packages::Deb);
    println!("-- rpm");
    a_package_from_begin_to_end(&packages::Rpm);
}
