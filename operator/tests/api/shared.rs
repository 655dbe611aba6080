//! RuntimeConfigs of one content: one revision for all of them, which says whom it comes from, and for whom it came through.
use crate::passes::{failed_on_a, run, server, told, versioned, world};
use crate::server::{Request, Server};
use berth_crds::{RuntimeConfigObject, RuntimeNode, RuntimeRevision};
use berth_operator::cluster::World;
use serde_json::{Value, json};
use std::sync::Arc;

/// The RuntimeConfig of node `b` says what that of node `a` does.
fn alike(mut world: World) -> World {
    let spec = json!({"nodeSelector": {"matchLabels": {"pool": "b"}}, "runtime": {"pidsLimit": 100}});
    let config = RuntimeConfigObject::new("b", serde_json::from_value(spec).unwrap());
    world.configs.insert("b".to_owned(), Arc::new(versioned(config)));
    world
}

/// What was written of the sources of revisions.
fn sources(server: &Server) -> Vec<Value> {
    let all = server.asked("/runtimerevisions/").into_iter().filter(|r| r.line.contains("/status"));
    all.map(|r| r.body["status"]["sources"].clone()).filter(|sources| !sources.is_null()).collect()
}

#[tokio::test]
async fn a_revision_is_made_once_and_says_whose_it_is_before_a_node_is_told_to_have_it() {
    let server = server(|_, _| false);
    let mut world = alike(world());
    run(&server, &world).await.unwrap();
    let made: Vec<Request> =
        server.asked("POST").into_iter().filter(|r| r.body["spec"]["runtime"].is_object()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let both = json!({"spec.runtime.pidsLimit": ["a", "b"]});
    assert_eq!(sources(&server), std::slice::from_ref(&both));
    let all = server.asked("");
    let name = made[0].body["metadata"]["name"].as_str().unwrap();
    let said = all.iter().position(|r| r.line.contains(&format!("/runtimerevisions/{name}/status"))).unwrap();
    let first = all.iter().position(|r| r.body["spec"]["desiredRevision"].is_string()).unwrap();
    assert!(said < first && told(&server, "a") && told(&server, "b"), "{all:?}");

    // A pass that was broken off in between is made up for, and one that was not writes nothing.
    let spec: RuntimeRevision = serde_json::from_value(made[0].body.clone()).unwrap();
    for (before, written) in [(json!({}), vec![both.clone()]), (both, vec![])] {
        let mut revision = versioned(spec.clone());
        revision.status = serde_json::from_value(json!({"verdict": "Bad", "sources": before})).unwrap();
        world.revisions.insert(name.to_owned(), Arc::new(revision));
        let server = crate::passes::server(|_, _| false);
        run(&server, &world).await.unwrap();
        assert_eq!(sources(&server), written);
        assert!(!told(&server, "a") && !told(&server, "b"), "it is bad under every name");
    }
}

/// A node that keeps what it has may have it of whom nobody names now; a name that is over goes only where all is known.
#[tokio::test]
async fn a_name_stays_while_it_is_not_known_what_nodes_are_to_have() {
    let (mut world, name) = failed_on_a().await;
    let revision = Arc::make_mut(world.revisions.get_mut(&name).unwrap());
    revision.status = serde_json::from_value(json!({"sources": {"spec.runtime.pidsLimit": ["gone"]}})).unwrap();
    for (selector, names) in [(json!({"pool": "none"}), json!(["a"])), (json!({"pool": "b"}), json!(["a", "gone"]))] {
        let object = json!({"metadata": {"name": "newer", "resourceVersion": "1"},
            "spec": {"turbo": true, "nodeSelector": {"matchLabels": selector}}});
        let broken = berth_operator::cluster::Broken { name: "newer".to_owned(), error: "turbo".to_owned(), object };
        world.broken_configs = vec![broken];
        let server = server(|_, _| false);
        run(&server, &world).await.unwrap();
        let of_it = server.asked(&format!("/runtimerevisions/{name}/status"));
        let said = of_it.iter().map(|r| &r.body["status"]["sources"]).find(|sources| !sources.is_null()).unwrap();
        assert_eq!(said["spec.runtime.pidsLimit"], names);
    }
}

/// It is found to be bad by one of them in the same pass in which the other one would be told to have it; where it came through, it stays good.
#[tokio::test]
async fn what_breaks_the_nodes_of_one_is_told_to_no_other_but_where_it_came_through() {
    for through in [false, true] {
        let (world, bad) = failed_on_a().await;
        let mut world = alike(world);
        if through {
            let revision = Arc::make_mut(world.revisions.get_mut(&bad).unwrap());
            let status = json!({"verdict": "Good", "throughFor": {"b": "2026-01-02T00:00:00Z"}});
            revision.status = serde_json::from_value(status).unwrap();
            with_second_node(&mut world, "b", &bad);
        }
        let server = server(|_, _| false);
        run(&server, &world).await.unwrap();
        let of_it = server.asked(&format!("/runtimerevisions/{bad}/status"));
        let said = of_it.iter().map(|r| &r.body["status"]).find(|status| status["verdict"] == "Bad");
        assert_eq!(said.unwrap()["throughFor"], json!({"a": null}), "{of_it:?}");
        assert_eq!(told(&server, "b"), through, "{:?}", server.asked("/runtimenodes/b"));
        let events = server.asked("/events");
        let back = |config: &str| {
            events.iter().any(|r| r.body["reason"] == "RolledBack" && r.body["regarding"]["name"] == config)
        };
        assert_eq!((back("a"), back("b")), (true, !through), "{events:?}");
    }
}

/// A node beside another one, which has a revision for long.
fn with_second_node(world: &mut World, beside: &str, has: &str) {
    let name = format!("{beside}2");
    let mut node = world.nodes[beside].as_ref().clone();
    (node.metadata.name, node.metadata.uid) = (Some(name.clone()), Some(name.clone()));
    world.nodes.insert(name.clone(), Arc::new(node));
    let since = "2026-01-01T00:00:00Z";
    let spec = json!({"nodeName": name, "nodeUID": name, "desiredRevision": has, "desiredSince": since});
    let mut object = versioned(RuntimeNode::new(&name, serde_json::from_value(spec).unwrap()));
    let status = json!({"currentRevision": has, "currentSince": since, "healthy": true});
    object.status = serde_json::from_value(status).unwrap();
    world.runtime_nodes.insert(name, Arc::new(object));
}

/// Months later the canary of another one fails, which came to the same content.
#[tokio::test]
async fn a_foreign_canary_takes_nothing_from_those_that_it_came_through_for() {
    let (world, bad) = failed_on_a().await;
    let mut world = alike(world);
    let revision = Arc::make_mut(world.revisions.get_mut(&bad).unwrap());
    let status = json!({"verdict": "Bad", "throughFor": {"b": "2026-01-02T00:00:00Z"}});
    revision.status = serde_json::from_value(status).unwrap();
    let joins = Arc::make_mut(world.runtime_nodes.get_mut("b").unwrap());
    joins.spec.fallback_revision = Some("config-old".to_owned());
    with_second_node(&mut world, "b", &bad);
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    let of_b = server.asked("/runtimenodes/b").into_iter().map(|r| r.body["spec"]["desiredRevision"].clone());
    assert_eq!(of_b.filter(Value::is_string).collect::<Vec<_>>(), [json!(bad)], "the one that joins gets it");
    let reasons = |config: &str| {
        let status = server.asked(&format!("/runtimeconfigs/{config}/status")).pop().unwrap().body["status"].clone();
        let all = status["conditions"].as_array().unwrap().clone();
        let of = |kind: &str| all.iter().find(|c| c["type"] == kind).unwrap()["reason"].clone();
        [of("Ready"), of("RolledBack")]
    };
    assert_eq!(reasons("b"), ["RollingOut", "AsExpected"]);
    assert_eq!(reasons("a"), ["RollingBack", "RollingBack"]);
}

/// All of them keep it: there is no way back that could be at its end.
#[tokio::test]
async fn what_nodes_keep_is_not_rolled_back() {
    let (mut world, bad) = failed_on_a().await;
    world.revisions.remove("config-old");
    let revision = Arc::make_mut(world.revisions.get_mut(&bad).unwrap());
    revision.status = serde_json::from_value(json!({"verdict": "Bad"})).unwrap();
    for (has, holds, reason) in [(true, "False", "NothingToGoBackTo"), (false, "True", "TooManyFailed")] {
        let node = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
        node.status = serde_json::from_value(json!({ "currentRevision": has.then_some(&bad) })).unwrap();
        if !has {
            node.spec.desired_revision = None;
        }
        let server = server(|_, _| false);
        run(&server, &world).await.unwrap();
        let status = server.asked("/runtimeconfigs/a/status").pop().unwrap().body["status"].clone();
        let of =
            |kind: &str| status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap().clone();
        assert_eq!((&of("RolledBack")["status"], &of("RolledBack")["reason"]), (&json!(holds), &json!(reason)));
        let ready = if has { "NothingToGoBackTo" } else { "RolledBack" };
        assert_eq!((&of("Ready")["status"], &of("Ready")["reason"]), (&json!("False"), &json!(ready)), "{status}");
    }
}
