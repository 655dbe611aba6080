//! The lease: whatever is answered instead of it, nobody leads who may not.
use crate::server::{Answer, Server, lead, lease, status, until};
use berth_operator::cluster::{Clock, client};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Long, for machines that are busy: nobody waits for it who gets what he waits for.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn bad_answers_are_no_lease_and_a_good_one_is_taken_later() {
    for bad in
        [|| status(500, "InternalError"), || Answer::Html(200), || Answer::Html(503), || status(429, "TooManyRequests")]
    {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let server = Server::start(move |request| {
            let early = counted.fetch_add(1, Ordering::Relaxed) < 2;
            if early { bad() } else { lease(request).unwrap() }
        });
        let (leadership, _release) = lead(server.client(), 1).await;
        until("two answers", SOON, || count.load(Ordering::Relaxed) >= 1).await;
        assert!(!leadership.held());
        until("it leads", SOON, || leadership.held()).await;
    }
}

#[tokio::test]
async fn who_cannot_renew_stops_before_the_lease_ends() {
    for silent in [true, false] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        // One lease, and then nothing any more.
        let server = Server::start(move |request| match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => lease(request).unwrap(),
            _ if silent => Answer::Nothing,
            _ => status(500, "InternalError"),
        });
        let (leadership, _release) = lead(server.client(), 2).await;
        until("it leads", SOON, || leadership.held()).await;
        assert!(leadership.rest().is_none_or(|rest| rest <= Duration::from_millis(1600)));
        until("it leads no more", Duration::from_millis(1900), || !leadership.held()).await;
    }
}

/// One who could not renew it in time gives it back as well: others need not wait until it expires for them.
#[tokio::test]
async fn whoever_ends_gives_back_what_names_it() {
    for holder in ["me", "another"] {
        let server = Server::start(move |request| match request.line.starts_with("GET") {
            true => Answer::Json(
                200,
                json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "berth-operator",
                "resourceVersion": "1"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 60}}),
            ),
            // It is never renewed.
            false if request.body["spec"]["holderIdentity"].is_string() => status(500, "InternalError"),
            false => Answer::Json(200, request.body.clone()),
        });
        let (leadership, release) = lead(server.client(), 5).await;
        until("it has asked", SOON, || server.asked("GET").len() > 1).await;
        assert!(!leadership.held());
        let before = server.asked("GET").len();
        release.send(true).unwrap();
        until("it looks whose it is", SOON, || server.asked("GET").len() > before && release.is_closed()).await;
        let given = server.asked("PUT").iter().any(|r| r.body["spec"]["holderIdentity"].is_null());
        assert_eq!(given, holder == "me", "{:?}", server.asked("PUT"));
    }
}

/// The token's file is read again by the client at least once a minute.
#[tokio::test]
async fn an_expired_token_ends_the_lead_and_a_fresh_one_takes_it_again() {
    let file = std::env::temp_dir().join(format!("berth-token-{}", std::process::id()));
    std::fs::write(&file, "expired").unwrap();
    let server = Server::start(|request| match request.token.as_deref() {
        Some("fresh") => lease(request).unwrap(),
        _ => status(401, "Unauthorized"),
    });
    let mut config = server.config();
    config.auth_info.token_file = Some(file.to_string_lossy().into_owned());
    let (leadership, _release) = lead(client::of(config, &Clock::default()).unwrap(), 5).await;
    until("it was refused", SOON, || !server.asked("leases").is_empty()).await;
    assert!(!leadership.held());
    std::fs::write(&file, "fresh").unwrap();
    until("it leads", Duration::from_secs(90), || leadership.held()).await;
    std::fs::remove_file(&file).unwrap();
}
