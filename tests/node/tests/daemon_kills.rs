//! SIGKILL of the daemon inside every named step, and of everything at random moments: what ran runs on, what was asked for again
//! succeeds, exit codes are true, and nothing is left over.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::Answer;
use crate::daemon::steps::{Bystander, STEPS, done, places, prepared, sleeper, victim};
use crate::daemon::{Cri, Node, eventually, is_alive, pod};
use berth_proto::cri::{ContainerState, PodSandboxState};
use std::collections::BTreeSet;

/// Has the daemon killed while `call` waits at the place, and starts it again, with a hold at `next`.
async fn kill_in<T>(node: &mut Node, next: Option<&String>, call: impl Future<Output = Answer<T>> + Send + 'static)
where
    T: std::fmt::Debug + Send + 'static,
{
    node.arm();
    let call = tokio::spawn(call);
    node.held().await;
    node.kill();
    call.await.unwrap().expect_err("the daemon was killed before it could answer");
    if let Some(place) = next {
        node.hold_at(place);
    }
    node.start().await;
}

async fn pods_but(cri: &Cri, bystander: &Bystander) -> Vec<String> {
    cri.pods().await.into_iter().map(|p| p.id).filter(|id| *id != bystander.pod).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cut_short_leaves_nothing_and_succeeds_the_next_time() {
    let places = places("run");
    let (mut node, bystander) = prepared(&places).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, sandbox) = (node.cri(), victim(&node, "victim"));
        let request = sandbox.clone();
        kill_in(&mut node, places.get(i + 1), async move { cri.try_run(&request).await }).await;
        let cri = node.cri();
        assert_eq!(pods_but(&cri, &bystander).await, Vec::<String>::new(), "after {place}");
        node.nothing_but(&[&bystander.pod], &[&bystander.container]);
        let id = cri.try_run(&sandbox).await.unwrap_or_else(|e| panic!("the retry after {place}: {e}"));
        assert_eq!(cri.pod_status(&id).await.unwrap().state(), PodSandboxState::SandboxReady, "after {place}");
        cri.try_remove_pod(&id).await.unwrap();
        bystander.check(&cri).await;
    }
    done(node, bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_cut_short_leaves_nothing_and_succeeds_the_next_time() {
    let places = places("create");
    let (mut node, bystander) = prepared(&places).await;
    let sandbox = victim(&node, "victim");
    let pod = node.cri().run(&sandbox).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, config) = (node.cri(), sleeper(&node, &format!("c{i}")));
        let call = {
            let (pod, config, sandbox) = (pod.clone(), config.clone(), sandbox.clone());
            async move { cri.try_create(&pod, &config, &sandbox).await }
        };
        kill_in(&mut node, places.get(i + 1), call).await;
        let cri = node.cri();
        let listed: Vec<_> = cri.containers().await.into_iter().filter(|c| c.pod_sandbox_id == pod).collect();
        let id =
            cri.try_create(&pod, &config, &sandbox).await.unwrap_or_else(|e| panic!("the retry after {place}: {e}"));
        match &listed[..] {
            [] => {}
            [one] => assert_eq!((&one.id, one.state()), (&id, ContainerState::ContainerCreated), "after {place}"),
            more => panic!("after {place}: {more:?}"),
        }
        node.nothing_but(&[&bystander.pod, &pod], &[&bystander.container, &id]);
        cri.try_start(&id).await.unwrap();
        cri.try_remove(&id).await.unwrap();
        bystander.check(&cri).await;
    }
    done(node, bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_cut_short_is_complete_or_says_that_it_failed() {
    let places = places("start");
    let (mut node, bystander) = prepared(&places).await;
    let sandbox = victim(&node, "victim");
    let pod = node.cri().run(&sandbox).await;
    for (i, place) in places.iter().enumerate() {
        let cri = node.cri();
        let id = cri.create(&pod, &sleeper(&node, &format!("c{i}")), &sandbox).await;
        let call = {
            let id = id.clone();
            async move { cri.try_start(&id).await }
        };
        kill_in(&mut node, places.get(i + 1), call).await;
        let cri = node.cri();
        // Whose child was not told to go on is ended by its init; that end may still be on its way.
        let status = eventually("the start is decided", async || {
            let status = cri.status(&id).await.unwrap();
            let info = cri.inspect(&id).await;
            let line = std::fs::read(format!("/proc/{}/cmdline", info["pid"])).unwrap_or_default();
            let decided = match status.state() {
                // Until the pod's monitor has answered the new daemon, the start is still under way.
                ContainerState::ContainerCreated => info["record"]["life"] != "Starting",
                ContainerState::ContainerRunning => line == b"/web\0sleep\0",
                _ => true,
            };
            decided.then_some(status)
        })
        .await;
        match status.state() {
            ContainerState::ContainerCreated => {
                assert_eq!(place, "start/record/enter");
                cri.try_start(&id).await.unwrap();
            }
            ContainerState::ContainerRunning => assert_eq!(place, "start/exec/leave"),
            ContainerState::ContainerExited => {
                assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "after {place}");
                let mut next = sleeper(&node, &format!("c{i}"));
                next.metadata.as_mut().unwrap().attempt = 1;
                let next = cri.launch(&pod, &next, &sandbox).await;
                cri.try_remove(&next).await.unwrap();
            }
            other => panic!("after {place}: {other:?}"),
        }
        cri.try_remove(&id).await.unwrap();
        node.nothing_but(&[&bystander.pod, &pod], &[&bystander.container]);
        bystander.check(&cri).await;
    }
    done(node, bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_is_cut_short_can_be_finished() {
    let places = places("stop");
    let (mut node, bystander) = prepared(&places).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, mut sandbox) = (node.cri(), victim(&node, "victim"));
        if place.starts_with("stop/record") {
            // The end of a pod's init makes it NOTREADY; without one, this step does.
            sandbox = pod(&node, "victim");
        }
        let pod = cri.run(&sandbox).await;
        let id = cri.launch(&pod, &sleeper(&node, "sleeper"), &sandbox).await;
        let pid = cri.pid(&id).await;
        let call = {
            let pod = pod.clone();
            async move { cri.try_stop_pod(&pod).await }
        };
        kill_in(&mut node, places.get(i + 1), call).await;
        let cri = node.cri();
        cri.pod_status(&pod).await.unwrap();
        cri.try_stop_pod(&pod).await.unwrap_or_else(|e| panic!("the retry after {place}: {e}"));
        assert_eq!(cri.pod_status(&pod).await.unwrap().state(), PodSandboxState::SandboxNotready, "after {place}");
        let status = cri.status(&id).await.unwrap();
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137), "after {place}");
        assert!(!is_alive(pid), "after {place}");
        cri.try_remove_pod(&pod).await.unwrap();
        node.nothing_but(&[&bystander.pod], &[&bystander.container]);
        bystander.check(&cri).await;
    }
    done(node, bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_cut_short_can_be_finished() {
    let places = [places("remove"), places("remove-container")].concat();
    let (mut node, bystander) = prepared(&places).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, sandbox) = (node.cri(), victim(&node, "victim"));
        let pod = cri.run(&sandbox).await;
        let id = cri.launch(&pod, &sleeper(&node, "sleeper"), &sandbox).await;
        let of_container = place.starts_with("remove-container");
        let call = {
            let (pod, id) = (pod.clone(), id.clone());
            async move { if of_container { cri.try_remove(&id).await } else { cri.try_remove_pod(&pod).await } }
        };
        kill_in(&mut node, places.get(i + 1), call).await;
        let cri = node.cri();
        if of_container {
            cri.try_remove(&id).await.unwrap_or_else(|e| panic!("the retry after {place}: {e}"));
            assert_eq!(cri.status(&id).await.unwrap_err().code(), tonic::Code::NotFound);
            node.nothing_but(&[&bystander.pod, &pod], &[&bystander.container]);
        }
        cri.try_remove_pod(&pod).await.unwrap_or_else(|e| panic!("the retry after {place}: {e}"));
        assert_eq!(pods_but(&cri, &bystander).await, Vec::<String>::new(), "after {place}");
        node.nothing_but(&[&bystander.pod], &[&bystander.container]);
        bystander.check(&cri).await;
    }
    done(node, bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_cut_short_succeeds_the_next_time() {
    let places = places("pull");
    let (mut node, bystander) = prepared(&places).await;
    for (i, place) in places.iter().enumerate() {
        let (cri, web) = (node.cri(), node.web());
        let call = {
            let web = web.clone();
            async move { cri.try_pull(&web, "default").await }
        };
        kill_in(&mut node, places.get(i + 1), call).await;
        let cri = node.cri();
        let id = cri.try_pull(&web, "default").await.unwrap_or_else(|e| panic!("the retry after {place}: {e}"));
        assert_eq!(cri.image(&web).await.unwrap().id, id, "after {place}");
        node.nothing_but(&[&bystander.pod], &[&bystander.container]);
        let image = Some(berth_proto::cri::ImageSpec { image: web, ..Default::default() });
        cri.images().remove_image(berth_proto::cri::RemoveImageRequest { image }).await.unwrap();
    }
    done(node, bystander).await;
}

/// A step that is added to the engine and not to the table fails here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_steps_is_whole() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), victim(&node, "victim"));
    let pod = cri.run(&sandbox).await;
    let id = cri.launch(&pod, &sleeper(&node, "sleeper"), &sandbox).await;
    cri.try_remove(&id).await.unwrap();
    cri.try_remove_pod(&pod).await.unwrap();
    // Without an init of its own it is the stop that makes it NOTREADY.
    let pod = cri.run(&daemon::pod(&node, "other")).await;
    cri.try_remove_pod(&pod).await.unwrap();
    let known: BTreeSet<(String, String)> =
        STEPS.iter().flat_map(|(op, steps)| steps.iter().map(|s| ((*op).to_owned(), (*s).to_owned()))).collect();
    let label = |series: &str, name: &str| {
        series.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let series = node.figures();
    let named = series.keys().filter(|s| s.starts_with("berth_phase_seconds_count"));
    let steps: BTreeSet<_> = named.map(|s| (label(s, "operation"), label(s, "phase"))).collect();
    // What init measures inside a step is not the daemon's.
    let steps: BTreeSet<_> = steps.into_iter().filter(|(_, phase)| !phase.starts_with("init.")).collect();
    assert_eq!(steps, known);
    node.finish().await;
}
