//! Single writes.
use crate::server::{Answer, Server, lead, lease, status, until};
use berth_crds::{RuntimeNode, RuntimeNodeSpec};
use berth_operator::cluster::writes::{Done, Evicted};
use berth_operator::cluster::{Clock, Writes, client};
use berth_operator::observe::Metrics;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::watch;

async fn writes(server: &Server, seconds: u64) -> (Writes, watch::Sender<bool>) {
    let (leadership, release) = lead(server.client(), seconds).await;
    until("it leads", Duration::from_secs(60), || leadership.held()).await;
    (Writes::new(server.client(), leadership, Metrics::new("0").unwrap()), release)
}

fn node() -> RuntimeNode {
    let mut node = RuntimeNode::new("n", RuntimeNodeSpec { node_name: "n".to_owned(), ..Default::default() });
    node.metadata.resource_version = Some("7".to_owned());
    node
}

fn pod() -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "x", "uid": "u-1"}})).unwrap()
}

#[tokio::test]
async fn a_budget_that_says_no_is_asked_once_and_at_once() {
    let server = Server::start(|request| lease(request).unwrap_or_else(|| status(429, "TooManyRequests")));
    let (writes, _release) = writes(&server, 15).await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(writes.evict(&pod()).await, Ok(Evicted::Refused("TooManyRequests".to_owned())));
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let asked = server.asked("/eviction");
    assert_eq!(asked.len(), 20, "each once");
    // Another pod of that name is not the one that was seen.
    assert_eq!(asked[0].body["deleteOptions"]["preconditions"]["uid"], "u-1", "{:?}", asked[0]);
}

/// A budget's own answer, and that about two budgets, which is a success by its code.
#[tokio::test]
async fn what_keeps_a_pod_is_known_by_its_words() {
    let budget = json!({"kind": "Status", "status": "Failure", "code": 429, "reason": "TooManyRequests",
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "details": {"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget b needs 1 healthy pods and has 1 currently"}]}});
    let two = json!({"kind": "Status", "status": "Failure", "code": 500,
        "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."});
    for (code, body, word, asked) in [(429, budget, "budget b needs 1", 2), (201, two, "more than one", 1)] {
        let server = Server::start(move |request| lease(request).unwrap_or_else(|| Answer::Json(code, body.clone())));
        let (writes, _release) = writes(&server, 15).await;
        for _ in 0..2 {
            let Ok(Evicted::Refused(why)) = writes.evict(&pod()).await else { panic!("{code} is a refusal") };
            assert!(why.contains(word), "{why}");
        }
        assert_eq!(server.asked("/eviction").len(), asked, "only a budget may say yes at any time");
        assert!(writes.refusal(&pod()).is_some_and(|why| why.contains(word)));
        assert!(!writes.ails(), "it is about this pod");
    }
}

#[tokio::test]
async fn what_is_refused_of_one_object_is_no_api_server_that_fails() {
    for (code, ails) in [(403, false), (422, false), (401, true), (429, true), (500, true), (503, true)] {
        let server = Server::start(move |request| lease(request).unwrap_or_else(|| status(code, "No")));
        let (writes, _release) = writes(&server, 15).await;
        writes.begin();
        for _ in 0..2 {
            writes.patch(&node(), json!({"spec": {"hold": true}})).await.unwrap_err();
        }
        assert_eq!((writes.ails(), writes.next_of_refused().is_some()), (ails, !ails), "{code}");
        assert_eq!(server.asked("/runtimenodes").len(), if ails { 2 } else { 1 }, "{code}");
        writes.patch(&node(), json!({"spec": {"grant": null}})).await.unwrap_err();
        assert_eq!(server.asked("/runtimenodes").len(), if ails { 3 } else { 2 }, "another field is another change");
    }
}

#[tokio::test]
async fn a_request_without_an_answer_ends_and_holds_up_no_other_of_its_pass() {
    let server = Server::start(|request| lease(request).unwrap_or(Answer::Nothing));
    let (writes, _release) = writes(&server, 15).await;
    let writes = writes.limited(Duration::from_millis(300));
    let began = Instant::now();
    let why = writes.patch(&node(), json!({"spec": {"hold": true}})).await.unwrap_err();
    assert!(why.contains("did not answer within"), "{why}");
    for _ in 0..50 {
        writes.patch(&node(), json!({"spec": {"hold": true}})).await.unwrap_err();
    }
    assert!(began.elapsed() < Duration::from_secs(8), "less than for each of them: {:?}", began.elapsed());
    assert_eq!(server.asked("/runtimenodes").len(), 1);
    writes.begin();
    writes.patch(&node(), json!({"spec": {"hold": true}})).await.unwrap_err();
    assert_eq!(server.asked("/runtimenodes").len(), 2, "the next pass asks again");
}

#[tokio::test]
async fn a_request_ends_with_the_lease_and_none_is_made_after_it() {
    // A lease of a second, once.
    let server = Server::start(|request| match request.line.starts_with("PUT") {
        true => status(500, "InternalError"),
        false => lease(request).unwrap_or(Answer::Nothing),
    });
    let (leadership, release) = lead(server.client(), 1).await;
    until("it leads", Duration::from_secs(60), || leadership.held()).await;
    let writes = Writes::new(server.client(), leadership.clone(), Metrics::new("0").unwrap());
    let began = Instant::now();
    writes.patch_status(&node(), json!({"healthy": true})).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "half of a request's limit: {:?}", began.elapsed());
    drop(release);
    until("it leads no more", Duration::from_secs(60), || !leadership.held()).await;
    let before = server.asked("/runtimenodes").len();
    writes.begin();
    let why = writes.patch(&node(), json!({})).await.unwrap_err();
    assert!(why.contains("lease is lost"), "{why}");
    assert_eq!(server.asked("/runtimenodes").len(), before);
}

#[tokio::test]
async fn bad_answers_fail_the_write_and_are_not_asked_for_again() {
    for bad in [|| status(500, "InternalError"), || Answer::Html(500), || Answer::Html(200), || Answer::Html(429)] {
        let server = Server::start(move |request| lease(request).unwrap_or_else(bad));
        let (writes, _release) = writes(&server, 15).await;
        writes.create(&node()).await.unwrap_err();
        writes.patch(&node(), json!({})).await.unwrap_err();
        writes.patch_status(&node(), json!({})).await.unwrap_err();
        writes.pods(None, Some("n"), |pod| pod).await.unwrap_err();
        assert_eq!((server.asked("/runtimenodes").len(), server.asked("/pods").len()), (3, 1));
    }
}

#[tokio::test]
async fn whatever_is_written_names_the_version_that_it_was_decided_for() {
    let server = Server::start(|request| lease(request).unwrap_or_else(|| status(409, "Conflict")));
    let (writes, _release) = writes(&server, 15).await;
    assert_eq!(writes.patch(&node(), json!({"spec": {}})).await, Ok(Done::Stale));
    assert_eq!(writes.patch_status(&node(), json!({})).await, Ok(Done::Stale));
    for request in server.asked("PATCH") {
        assert_eq!(request.body["metadata"]["resourceVersion"], "7", "{request:?}");
    }
}

#[tokio::test]
async fn pods_come_page_by_page() {
    let server = Server::start(|request| {
        lease(request).unwrap_or_else(|| {
            let (name, token) = if request.line.contains("continue=more") { ("b", "") } else { ("a", "more") };
            let item = json!({"metadata": {"name": name}});
            Answer::Json(
                200,
                json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": token}, "items": [item]}),
            )
        })
    });
    let (writes, _release) = writes(&server, 15).await;
    let names = writes.pods(None, Some("n"), |pod| pod.metadata.name.unwrap()).await.unwrap();
    assert_eq!(names, ["a", "b"]);
    assert!(server.asked("/pods").iter().all(|r| r.line.contains("limit=500")));
}

/// Also one that says no: grants end by that clock.
#[tokio::test]
async fn every_answer_tells_the_api_servers_time() {
    let server = Server::start(|request| lease(request).unwrap_or_else(|| status(500, "InternalError")));
    let clock = Clock::default();
    let client = client::of(server.config(), &clock).unwrap();
    let nodes: kube::Api<RuntimeNode> = kube::Api::all(client);
    nodes.get("n").await.unwrap_err();
    // `DATE` of the server.
    assert!((1_767_225_600..1_767_225_660).contains(&clock.now()), "{}", clock.now());
}
