//! The same way, for a person: `cargo xtask quickstart --cluster`. Says what is typed and what comes of it, with the seconds of each step.
//!
//! Owns: the words. Must not: do anything that the cases do not.
use crate::site::{NAMESPACE, Site};
use crate::{chain, steering};
use berth_cluster_tests::programs;
use std::time::Instant;

/// First argument.
pub const WORD: &str = "--tour";

/// Goes the whole way; with `keep` it waits, before it goes back, until standard input ends or has a line.
pub fn run(keep: bool) {
    let began = Instant::now();
    println!(
        "A cluster of one node: a real control plane, a kubelet, containerd 2.4, in namespaces of their own on this machine.\n"
    );
    let site = step("start the cluster; its node is ready on containerd", Site::start);
    let show = |words: &[&str]| {
        println!("\n$ kubectl {}\n{}", words.join(" "), site.kubectl(NAMESPACE).run(words).trim_end());
    };
    show(&["get", "nodes", "-o", "wide"]);
    step("helm install berth charts/berth: operator and agent run, the node is as it was", || {
        chain::is_installed(&site)
    });
    show(&["get", "pods,runtimenodes"]);
    step("kubectl apply a RuntimeConfig: the node is drained, switched to Berth, proven and opened", || {
        chain::is_taken_over(&site);
    });
    show(&["get", "nodes", "-o", "wide"]);
    show(&["get", "runtimeconfigs,runtimenodes"]);
    step("a Deployment with limits and a Service, and kubectl exec", || chain::runs_workloads(&site));
    step("an ImagePolicy denies an image", || steering::denies_an_image(&site));
    if keep {
        waits(&site);
    }
    step("state: Absent gives the node back; helm uninstall", || chain::is_given_back(&site));
    show(&["get", "nodes", "-o", "wide"]);
    step("remove the cluster, and count what is left over: nothing", || site.finish());
    println!("\nThe whole way took {:.0} s.", began.elapsed().as_secs_f64());
}

fn step<T>(what: &str, body: impl FnOnce() -> T) -> T {
    println!("\n== {what}");
    let began = Instant::now();
    let value = body();
    println!("   {:.1} s", began.elapsed().as_secs_f64());
    value
}

fn waits(site: &Site) {
    let kubectl = site.kubectl("default");
    println!(
        "\nThe cluster is kept. In another shell:\n\n  nsenter --target {} --net --mount {} --kubeconfig {} get pods -A\n  \
         nsenter --target {} --net --mount {} --root {} ps\n\nEnter goes on: the node is given back, and everything is removed.",
        site.space().holder(),
        programs::kubernetes("kubectl").display(),
        kubectl.kubeconfig().display(),
        site.space().holder(),
        programs::berth("berth").display(),
        site.root().display(),
    );
    let _ = std::io::stdin().read_line(&mut String::new());
}
