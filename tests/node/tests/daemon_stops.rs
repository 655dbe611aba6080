//! SIGSTOP of the daemon and of the pod's monitor inside every named step: whoever is stopped goes on where it was, the call under way
//! succeeds, what ran runs on meanwhile, and nothing is left over.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::{Answer, log_text};
use crate::daemon::steps::{Bystander, done, places, prepared, sleeper, victim};
use crate::daemon::{Node, eventually, signal};
use berth_proto::cri::{ContainerState, ImageSpec, PodSandboxState, RemoveImageRequest};
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};

/// The node's monitors, but for the bystander's, whose log must go on.
fn monitors(node: &Node, bystander: i32) -> Vec<i32> {
    let root = node.root().display().to_string();
    let entries =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().into_string().ok()?.parse().ok());
    let text = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let of_node = |pid: &i32| text(*pid, "comm").trim() == "berth-monitor" && text(*pid, "cmdline").contains(&root);
    entries.filter(of_node).filter(|pid| *pid != bystander).collect()
}

fn is_stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let state = |id: String| std::fs::read_to_string(format!("/proc/{pid}/task/{id}/stat")).unwrap_or_default();
    threads.filter_map(|t| t.ok()?.file_name().into_string().ok()).all(|id| state(id).contains(") T "))
}

/// Stops everything while `call` waits at the place, sees that the bystander's log goes on, lets everything run again, in the order of
/// `daemon_first`, and gives the call's answer.
async fn stop_in<T>(
    node: &Node,
    bystander: &Bystander,
    daemon_first: bool,
    call: impl Future<Output = Answer<T>> + Send + 'static,
) -> T
where
    T: std::fmt::Debug + Send + 'static,
{
    let spared = node.cri().monitor_pid(&bystander.pod).await;
    node.arm();
    let call = tokio::spawn(call);
    node.held().await;
    let mut stopped = monitors(node, spared);
    stopped.push(node.pid());
    stopped.iter().for_each(|pid| signal(*pid, SIGSTOP));
    // The signal is on its way to each thread; before the last has stopped, one could go on.
    eventually("all are stopped", async || stopped.iter().all(|pid| is_stopped(*pid)).then_some(())).await;
    node.release();
    let lines = log_text(&bystander.log).lines().count();
    eventually("the log goes on", async || (log_text(&bystander.log).lines().count() > lines + 3).then_some(())).await;
    assert!(!call.is_finished(), "a stopped daemon answered");
    if daemon_first {
        stopped.reverse();
    }
    for pid in stopped {
        signal(pid, SIGCONT);
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    call.await.unwrap().unwrap()
}

/// Holds the daemon at the next place from now on.
async fn next(node: &mut Node, place: Option<&String>) {
    if let Some(place) = place {
        node.hold_at(place);
        node.kill_and_start().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_and_stops_go_on_where_they_were_stopped() {
    let places = [places("run"), places("stop"), places("remove")].concat();
    let (mut node, bystander) = prepared(&places).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, mut sandbox) = (node.cri(), victim(&node, "victim"));
        if place.starts_with("stop/record") {
            // The end of a pod's init makes it NOTREADY; without one, this step does.
            sandbox = daemon::pod(&node, "victim");
        }
        if place.starts_with("run") {
            let request = sandbox.clone();
            let pod = stop_in(&node, &bystander, i % 2 == 0, async move { cri.try_run(&request).await }).await;
            let cri = node.cri();
            assert_eq!(cri.pod_status(&pod).await.unwrap().state(), PodSandboxState::SandboxReady, "{place}");
            cri.try_remove_pod(&pod).await.unwrap();
        } else {
            let pod = cri.run(&sandbox).await;
            let id = cri.launch(&pod, &sleeper(&node, "sleeper"), &sandbox).await;
            let (of_stop, request) = (place.starts_with("stop"), pod.clone());
            let call = async move {
                if of_stop { cri.try_stop_pod(&request).await } else { cri.try_remove_pod(&request).await }
            };
            stop_in(&node, &bystander, i % 2 == 0, call).await;
            let cri = node.cri();
            if of_stop {
                let status = cri.status(&id).await.unwrap();
                assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137), "{place}");
                cri.try_remove_pod(&pod).await.unwrap();
            }
        }
        node.nothing_but(&[&bystander.pod], &[&bystander.container]);
        next(&mut node, places.get(i + 1)).await;
    }
    done(node, bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_and_images_go_on_where_they_were_stopped() {
    let places = [places("create"), places("start"), places("remove-container"), places("pull")].concat();
    let (mut node, bystander) = prepared(&places).await;
    let sandbox = victim(&node, "victim");
    let pod = node.cri().run(&sandbox).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, config) = (node.cri(), sleeper(&node, &format!("c{i}")));
        if place.starts_with("pull") {
            let web = node.web();
            let wanted = web.clone();
            let call = async move { cri.try_pull(&wanted, "default").await };
            let id = stop_in(&node, &bystander, i % 2 == 0, call).await;
            assert_eq!(node.cri().image(&web).await.unwrap().id, id, "{place}");
            let image = Some(ImageSpec { image: web, ..Default::default() });
            node.cri().images().remove_image(RemoveImageRequest { image }).await.unwrap();
        } else if place.starts_with("create") {
            let (pod, sandbox) = (pod.clone(), sandbox.clone());
            let call = async move { cri.try_create(&pod, &config, &sandbox).await };
            let id = stop_in(&node, &bystander, i % 2 == 0, call).await;
            node.cri().try_start(&id).await.unwrap();
            node.cri().try_remove(&id).await.unwrap();
        } else {
            let of_start = place.starts_with("start");
            let id = cri.create(&pod, &config, &sandbox).await;
            let request = id.clone();
            let call =
                async move { if of_start { cri.try_start(&request).await } else { cri.try_remove(&request).await } };
            stop_in(&node, &bystander, i % 2 == 0, call).await;
            if of_start {
                let status = node.cri().status(&id).await.unwrap();
                assert_eq!(status.state(), ContainerState::ContainerRunning, "{place}");
                node.cri().try_remove(&id).await.unwrap();
            }
        }
        node.nothing_but(&[&bystander.pod, &pod], &[&bystander.container]);
        next(&mut node, places.get(i + 1)).await;
    }
    node.cri().try_remove_pod(&pod).await.unwrap();
    done(node, bystander).await;
}
