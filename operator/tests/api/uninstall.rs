//! What is asked before the release goes, of API servers that answer in pages, know no RuntimeNode, refuse, or talk HTML.
use crate::server::{Answer, Server, status};
use berth_operator::cluster::Clock;
use berth_operator::uninstall::{Refusal, ask};
use serde_json::{Value, json};

fn list(nodes: &[(&str, &str)], more: &str) -> Answer {
    let node = |(name, state): &(&str, &str)| {
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": name}, "spec": {"nodeName": name},
            "status": {"state": state}})
    };
    let items: Vec<Value> = nodes.iter().map(node).collect();
    let metadata = json!({"resourceVersion": "1", "continue": more});
    Answer::Json(
        200,
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNodeList", "metadata": metadata, "items": items}),
    )
}

#[tokio::test]
async fn a_node_of_the_last_page_counts() {
    let server = Server::start(|request| match request.line.contains("continue=more") {
        false => list(&[("a", "Absent")], "more"),
        true => list(&[("b", "Foreign"), ("c", "Managed")], ""),
    });
    match ask(server.client(), &Clock::default()).await {
        Err(Refusal::Nodes(why)) => assert!(why.contains(": c. "), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.asked("GET /apis/berth.dev/v1alpha1/runtimenodes?").len(), 2);
    let given_back = Server::start(|_| list(&[("a", "Absent"), ("b", "Foreign")], ""));
    assert_eq!(ask(given_back.client(), &Clock::default()).await, Ok(()));
}

/// It was given back, and its kubelet is not there yet: nobody else would make it schedulable again.
#[tokio::test]
async fn a_node_that_is_still_cordoned_by_us_is_waited_for_on_every_page() {
    let nodes = |names: [(&str, bool); 2], more: &str| {
        let node = |(name, cordoned): (&str, bool)| {
            let annotations =
                if cordoned { json!({"berth.dev/cordoned-since": "2026-01-01T00:00:00Z"}) } else { json!({}) };
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}})
        };
        let metadata = json!({"resourceVersion": "1", "continue": more});
        let items = names.map(node);
        Answer::Json(200, json!({"apiVersion": "v1", "kind": "NodeList", "metadata": metadata, "items": items}))
    };
    let with = |cordoned: bool| {
        Server::start(move |request| match request.line.as_str() {
            line if line.contains("/runtimenodes") => list(&[("a", "Absent"), ("c", "Absent")], ""),
            line if line.contains("continue=more") => nodes([("b", false), ("c", cordoned)], ""),
            _ => nodes([("a", false), ("elsewhere", false)], "more"),
        })
    };
    let server = with(true);
    match ask(server.client(), &Clock::default()).await {
        Err(Refusal::Nodes(why)) => assert!(why.contains("cordoned: c. ") && why.contains("uncordon"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.asked("GET /api/v1/nodes?").len(), 2);
    assert_eq!(ask(with(false).client(), &Clock::default()).await, Ok(()));
    let forbidden = Server::start(|request| match request.line.contains("/runtimenodes") {
        true => list(&[], ""),
        false => status(403, "Forbidden"),
    });
    match ask(forbidden.client(), &Clock::default()).await {
        Err(Refusal::Unknown(why)) => assert!(why.contains("nodes cannot be listed"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// The definitions were deleted, and are there again or not: of the nodes nobody has said anything, and their kubelets say what they are on.
#[tokio::test]
async fn a_node_on_berth_that_nobody_has_said_anything_of_is_not_left() {
    let nodes = |runtime: &str| {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "status": {"nodeInfo": {"containerRuntimeVersion": runtime}}});
        Answer::Json(200, json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": [node]}))
    };
    let objects: [fn() -> Answer; 3] = [
        || {
            let node = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": "a"}, "spec": {"nodeName": "a"}});
            Answer::Json(
                200,
                json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNodeList", "metadata": {}, "items": [node]}),
            )
        },
        || list(&[], ""),
        || status(404, "NotFound"),
    ];
    for objects in objects {
        let with = |runtime: &'static str| {
            Server::start(
                move |request| if request.line.contains("/runtimenodes") { objects() } else { nodes(runtime) },
            )
        };
        match ask(with("berth://0.1.0").client(), &Clock::default()).await {
            Err(Refusal::Nodes(why)) => assert!(why.contains(": a (its kubelet is on Berth"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(with("containerd://2.4.0").client(), &Clock::default()).await, Ok(()));
    }
}

/// A word of a newer version in one object: the node counts as left, and the others are still seen.
#[tokio::test]
async fn a_node_that_is_not_understood_hides_no_other() {
    let server = Server::start(|_| list(&[("a", "Absent"), ("b", "Suspended"), ("c", "Managed")], ""));
    match ask(server.client(), &Clock::default()).await {
        Err(Refusal::Nodes(why)) => {
            assert!(
                why.contains(": b (its RuntimeNode is not understood), c. ") && why.contains("newer version"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_anything_there_is_no_node_and_without_an_answer_nothing_is_known() {
    let without = Server::start(|_| status(404, "NotFound"));
    assert_eq!(ask(without.client(), &Clock::default()).await, Ok(()));
    let troubles: [fn() -> Answer; 3] =
        [|| status(403, "Forbidden"), || Answer::Json(500, json!({})), || Answer::Html(503)];
    for trouble in troubles {
        let server = Server::start(move |_| trouble());
        assert!(matches!(ask(server.client(), &Clock::default()).await, Err(Refusal::Unknown(_))));
    }
}
