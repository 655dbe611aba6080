//! What keeps nodes from a revision is in the condition `Ready` of their RuntimeConfig.
use crate::passes::{run, server, told, versioned, world};
use berth_crds::{RuntimeConfigObject, RuntimeNode};
use berth_operator::cluster::World;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use std::sync::Arc;

/// One RuntimeConfig for both nodes.
fn fleet() -> World {
    let mut world = world();
    world.configs.clear();
    let config = RuntimeConfigObject::new("fleet", serde_json::from_value(json!({"nodeSelector": {}})).unwrap());
    world.configs.insert("fleet".to_owned(), Arc::new(versioned(config)));
    world
}

/// Of the condition; and whether node `b` was told something.
async fn ready(world: &World) -> (Value, bool) {
    let server = server(|_, _| false);
    run(&server, world).await.unwrap();
    let status = server.asked("/runtimeconfigs/fleet/status").pop().unwrap().body["status"].clone();
    let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    (ready, told(&server, "b"))
}

#[tokio::test]
async fn a_node_that_has_the_whole_budget_is_named() {
    let change: [fn(&mut Node); 2] = [
        |node| node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".to_owned(),
        |node| node.spec = serde_json::from_value(json!({"unschedulable": true})).unwrap(),
    ];
    for (change, why) in change.into_iter().zip(["is not Ready", "was cordoned by somebody else"]) {
        let mut world = fleet();
        change(Arc::make_mut(world.nodes.get_mut("a").unwrap()));
        let (ready, told) = ready(&world).await;
        let message = ready["message"].as_str().unwrap();
        assert!(!told && ready["reason"] == "RollingOut", "{ready}");
        assert!(message.contains(&format!("no room for the next 1 nodes: node a {why}; ")), "{ready}");
    }
}

#[tokio::test]
async fn a_node_without_the_version_is_named() {
    let mut world = fleet();
    let node: &mut RuntimeNode = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
    node.status = serde_json::from_value(json!({"newestVersion": "0.9.0"})).unwrap();
    let (ready, told) = ready(&world).await;
    assert!(told, "the other one has its turn");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("1 nodes lack its version of the runtime") && message.contains("node a: "), "{ready}");
    assert!(message.contains("0.9.0"), "{ready}");
}

#[tokio::test]
async fn a_node_that_nobody_tells_is_named() {
    let change: [fn(&mut World); 2] = [
        |world| Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap()).spec.hold = true,
        |world| {
            // Both: no other one is due that the budget would lack room for.
            for name in ["a", "b"] {
                let node = Arc::make_mut(world.nodes.get_mut(name).unwrap());
                node.spec = serde_json::from_value(json!({"unschedulable": true})).unwrap();
            }
        },
    ];
    for (change, why) in change
        .into_iter()
        .zip(["1 nodes are not told now: node a is held", "2 nodes are not told now: node a was cordoned"])
    {
        let mut world = fleet();
        change(&mut world);
        let (ready, _) = ready(&world).await;
        assert!(ready["message"].as_str().unwrap().contains(why), "{ready}");
    }
}

/// The revision that the RuntimeConfig comes to.
async fn target(world: &World) -> String {
    let server = server(|_, _| false);
    run(&server, world).await.unwrap();
    let status = server.asked("/runtimeconfigs/fleet/status").pop().unwrap().body["status"].clone();
    status["targetRevision"].as_str().unwrap().to_owned()
}

/// One of two, or all: it is told nothing, has failed at nothing, and nobody waits for it.
#[tokio::test]
async fn a_node_of_the_control_plane_that_nobody_asked_for_is_named() {
    for all in [false, true] {
        let mut world = fleet();
        if all {
            world.nodes.remove("b");
            world.runtime_nodes.remove("b");
        }
        let made = target(&world).await;
        let node: &mut RuntimeNode = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
        let since = "2026-01-01T00:00:00Z";
        node.spec.desired_revision = Some(made.clone());
        (node.spec.desired_since, node.spec.control_plane) = (Some(since.to_owned()), Some(false));
        let failed = json!({"revision": made, "reason": "ControlPlane", "message": "static pod etcd: is it", "at": since,
            "desiredSince": since});
        node.status = serde_json::from_value(json!({"failed": failed, "nodeUID": node.spec.node_uid})).unwrap();
        let (ready, told) = ready(&world).await;
        let (reason, of) = if all { ("NoMatchingNodes", "no node") } else { ("RollingOut", "0 of 1 nodes") };
        let message = ready["message"].as_str().unwrap();
        assert!(told != all && ready["reason"] == reason && message.contains(of), "{ready}");
        assert!(
            message.contains("1 nodes are left out") && message.contains("node a: static pod etcd: is it"),
            "{ready}"
        );
    }
}

#[tokio::test]
async fn a_node_that_is_not_done_is_named() {
    let mut world = fleet();
    let made = target(&world).await;
    let node: &mut RuntimeNode = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
    let status = json!({"phase": "Verifying", "message": "Secret x/y not found", "currentRevision": made, "nodeUID": node.spec.node_uid});
    node.status = serde_json::from_value(status).unwrap();
    let (ready, _) = ready(&world).await;
    assert!(ready["message"].as_str().unwrap().contains("node a is not done with it: Secret x/y not found"), "{ready}");
}
