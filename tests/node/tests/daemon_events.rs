//! GetContainerEvents: in order, with complete statuses, bounded for each subscriber, and ended with the daemon.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::client::within;
use crate::daemon::{Cri, Node, container, pod};
use ContainerEventType::{
    ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
    ContainerStoppedEvent as Stopped,
};
use berth_proto::cri::*;
use std::time::Duration;
use tonic::{Code, Streaming};

const SOON: Duration = Duration::from_secs(20);

async fn subscribe(cri: &Cri) -> Streaming<ContainerEventResponse> {
    cri.runtime().get_container_events(GetEventsRequest {}).await.unwrap().into_inner()
}

/// The next event: it must be this, with the status of the pod and of these containers.
async fn expect(
    events: &mut Streaming<ContainerEventResponse>,
    (kind, id): (ContainerEventType, &str),
    pod: (&str, PodSandboxState),
    containers: &[(&str, ContainerState)],
) -> ContainerEventResponse {
    let what = format!("{kind:?} of {id}");
    let event = within(SOON, &what, events.message()).await.unwrap().expect("the stream goes on");
    assert_eq!((event.container_event_type(), event.container_id.as_str()), (kind, id), "{event:?}");
    let status = event.pod_sandbox_status.as_ref().expect("the pod's status");
    assert_eq!((status.id.as_str(), status.state()), pod, "{what}");
    assert!(status.metadata.as_ref().is_some_and(|m| !m.uid.is_empty()), "{what}");
    let told: Vec<(&str, ContainerState)> =
        event.containers_statuses.iter().map(|c| (c.id.as_str(), c.state())).collect();
    assert_eq!(told, containers, "{what}");
    assert!(event.created_at > 0);
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_told_in_order_with_all_statuses() {
    use ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};
    use PodSandboxState::{SandboxNotready, SandboxReady};
    let node = Node::with_tools().await;
    let cri = node.cri();
    let (mut one, mut two) = (subscribe(&cri).await, subscribe(&cri).await);
    let sandbox = pod(&node, "told");
    let id = cri.run(&sandbox).await;
    let app = cri.create(&id, &container(&node, "app", &["sh", "-c", "exit 3"]), &sandbox).await;
    let status = cri.pod_status(&id).await.unwrap();
    cri.try_start(&app).await.unwrap();
    cri.exited(&app).await;
    cri.try_remove(&app).await.unwrap();
    cri.try_stop_pod(&id).await.unwrap();
    cri.try_remove_pod(&id).await.unwrap();
    for events in [&mut one, &mut two] {
        let ready = (id.as_str(), SandboxReady);
        expect(events, (Created, &id), ready, &[]).await;
        let up = expect(events, (Started, &id), ready, &[]).await;
        assert_eq!(up.pod_sandbox_status.unwrap(), status, "with the addresses, as PodSandboxStatus says");
        let waits = expect(events, (Created, &app), ready, &[(&app, ContainerCreated)]).await;
        let runs = expect(events, (Started, &app), ready, &[(&app, ContainerRunning)]).await;
        assert!(runs.created_at >= waits.created_at && runs.containers_statuses[0].started_at > 0);
        let ended = expect(events, (Stopped, &app), ready, &[(&app, ContainerExited)]).await;
        let status = &ended.containers_statuses[0];
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        assert!(status.finished_at > 0 && status.log_path.ends_with("app.log"));
        expect(events, (Deleted, &app), ready, &[]).await;
        expect(events, (Stopped, &id), (&id, SandboxNotready), &[]).await;
        expect(events, (Deleted, &id), (&id, SandboxNotready), &[]).await;
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_fail_and_stopped_pods_are_told() {
    use ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};
    use PodSandboxState::{SandboxNotready, SandboxReady};
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "fails");
    let id = cri.run(&sandbox).await;
    let mut events = subscribe(&cri).await;
    let broken = cri.create(&id, &container(&node, "broken", &["/no/such/program"]), &sandbox).await;
    cri.try_start(&broken).await.unwrap_err();
    let ready = (id.as_str(), SandboxReady);
    expect(&mut events, (Created, &broken), ready, &[(&broken, ContainerCreated)]).await;
    let mut event = within(SOON, "an event of the start", events.message()).await.unwrap().unwrap();
    // The program is executed after the container is recorded as running.
    if event.container_event_type() == Started {
        event = within(SOON, "the end of the start", events.message()).await.unwrap().unwrap();
    }
    assert_eq!((event.container_event_type(), event.container_id.as_str()), (Stopped, broken.as_str()));
    assert_eq!(event.containers_statuses[0].reason, "StartError");
    cri.try_remove(&broken).await.unwrap();
    expect(&mut events, (Deleted, &broken), ready, &[]).await;

    let sleeps = cri.launch(&id, &container(&node, "sleeps", &["sleep", "1000"]), &sandbox).await;
    expect(&mut events, (Created, &sleeps), ready, &[(&sleeps, ContainerCreated)]).await;
    expect(&mut events, (Started, &sleeps), ready, &[(&sleeps, ContainerRunning)]).await;
    cri.try_stop_pod(&id).await.unwrap();
    expect(&mut events, (Stopped, &sleeps), ready, &[(&sleeps, ContainerExited)]).await;
    expect(&mut events, (Stopped, &id), (&id, SandboxNotready), &[(&sleeps, ContainerExited)]).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_subscriber_harms_nobody_and_is_told() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    // A connection of its own, so that its full window is nobody else's.
    let stalled = Cri::connect(&node.socket()).await.unwrap();
    let mut stalled = subscribe(&stalled).await;
    let mut quick = subscribe(&cri).await;
    let mut sandbox = pod(&node, "busy");
    // Each event is long, so that few of them fill the window.
    sandbox.annotations.insert("long".into(), "x".repeat(20_000));
    let id = cri.run(&sandbox).await;
    for round in 0..400 {
        let mut config = container(&node, "app", &["true"]);
        config.metadata.as_mut().unwrap().attempt = round;
        let created = within(SOON, "a create beside a stalled subscriber", cri.create(&id, &config, &sandbox)).await;
        within(SOON, "a remove beside a stalled subscriber", cri.try_remove(&created)).await.unwrap();
        // Created, ended before its start, deleted; the pod's own two at first.
        for _ in 0..if round == 0 { 5 } else { 3 } {
            within(SOON, "an event", quick.message()).await.unwrap().unwrap();
        }
    }
    // What was on its way comes; then the stream says that more is lost, and ends.
    let mut came = 0;
    let error = loop {
        match within(SOON, "the end of the stalled stream", stalled.message()).await {
            Ok(Some(_)) => came += 1,
            Ok(None) => panic!("the stream ended without a word after {came} events"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    assert!(error.message().contains("list again") && came < 1000, "{came}: {error:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_daemon_ends_the_stream_and_waits_for_nobody() {
    let mut node = Node::with_tools().await;
    let mut events = subscribe(&node.cri()).await;
    let status = node.terminate().await;
    assert!(status.success());
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(!log.contains("calls under way are cut off"), "the daemon waited for its subscribers");
    let ended = within(SOON, "the end of the stream", events.message()).await;
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    node.start().await;
    let again = subscribe(&node.cri()).await;
    drop(again);
    node.finish().await;
}
