//! Mirrors: order, capabilities, prefixes, failures, and what they are shown.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::ErrorKind;
use berth_registry::{
    Auth, Client, ClientConfig, ClientIdentity, Credentials, HostConfig, Liars, Mirror, MirrorCredentials, Observation,
    Observer, Tls,
};
use berth_test_registry::{AuthMode, Fault, Options, Registry, When};
use common::{Setup, blob, client_for, config, image, pull, setup, user};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ANON: Auth = Auth::Anonymous;

async fn mirror_of(options: Options, prefix: &str) -> Registry {
    let registry = Registry::start(options).await.unwrap();
    registry.push_built(&format!("{prefix}team/app"), Some("v1"), &image().build().unwrap());
    registry
}

fn basic() -> Options {
    let auth = AuthMode::Basic { username: "user".into(), password: "sesame".into() };
    Options { auth, ..Options::default() }
}

fn with(s: &Setup, mirrors: Vec<Mirror>) -> HostConfig {
    assert!(s.registry.requests().is_empty());
    HostConfig { mirrors, ..HostConfig::default() }
}

#[tokio::test]
async fn the_first_mirror_that_has_it_serves() {
    let s = setup(Options::default()).await;
    let empty = Registry::start(Options::default()).await.unwrap();
    let full = mirror_of(Options::default(), "").await;
    let client = client_for(&s.registry.host(), with(&s, vec![Mirror::new(empty.url()), Mirror::new(full.url())]));
    pull(&client, &s.reference, &ANON).await.unwrap();
    assert!(s.registry.requests().is_empty(), "the registry itself is not asked");
    assert!(!empty.requests().is_empty());
    assert!(
        full.requests().iter().all(|r| r.query == format!("ns={}", s.registry.host())),
        "as pull-through caches want it"
    );
}

#[tokio::test]
async fn a_mirror_without_resolve_is_not_asked_for_tags() {
    let s = setup(Options::default()).await;
    let full = mirror_of(Options::default(), "").await;
    let digest_only = Mirror { resolve: false, ..Mirror::new(full.url()) };
    let client = client_for(&s.registry.host(), with(&s, vec![digest_only.clone()]));
    pull(&client, &s.reference, &ANON).await.unwrap();
    assert_eq!(s.registry.requests().len(), 1, "the tag");
    assert!(full.requests().iter().all(|r| r.path.contains("sha256:")));

    let never = HostConfig { mirrors_only: true, mirrors: vec![digest_only], ..HostConfig::default() };
    let e = pull(&client_for(&s.registry.host(), never), &s.reference, &ANON).await.unwrap_err();
    assert!(e.message().contains("resolve tags") && e.message().contains("fallback"), "{e}");
}

#[tokio::test]
async fn a_path_is_put_before_the_repository() {
    let s = setup(Options::default()).await;
    let full = mirror_of(Options::default(), "hub/cache/").await;
    for path in ["/hub/cache", "/v2/hub/cache/"] {
        let client = client_for(&s.registry.host(), with(&s, vec![Mirror::new(format!("{}{path}", full.url()))]));
        pull(&client, &s.reference, &ANON).await.unwrap();
    }
}

#[tokio::test]
async fn a_mirror_that_failed_is_left_alone_for_a_while() {
    let s = setup(Options::default()).await;
    let sick = mirror_of(Options::default(), "").await;
    sick.inject(When::any(), Fault::Status { code: 503, retry_after: Some(3600) });
    let hosts = [(s.registry.host(), with(&s, vec![Mirror::new(sick.url())]))].into();
    let mut config = ClientConfig { hosts, ..config() };
    config.timeouts.mirror_pause = Duration::from_secs(1);
    let client = Client::new(config).unwrap();
    pull(&client, &s.reference, &ANON).await.unwrap();
    assert_eq!(sick.requests().len(), 1, "one attempt, and no other request of this pull");
    sick.clear_faults();
    pull(&client, &s.reference, &ANON).await.unwrap();
    assert_eq!(sick.requests().len(), 1, "remembered");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    s.registry.clear_requests();
    pull(&client, &s.reference, &ANON).await.unwrap();
    assert!(s.registry.requests().is_empty() && sick.requests().len() > 3, "asked again");
}

#[derive(Debug, Default)]
struct Pauses(Mutex<Vec<Duration>>);

impl Observer for Pauses {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::MirrorPaused { pause, .. } = observation {
            self.0.lock().unwrap().push(*pause);
        }
    }
}

#[tokio::test]
async fn a_mirror_that_breaks_off_each_time_is_left_alone_for_longer() {
    let s = setup(Options::default()).await;
    let torn = mirror_of(Options::default(), "").await;
    torn.inject(When::blob(&s.layer.digest), Fault::Truncate { after: 1000 });
    let pauses = Arc::new(Pauses::default());
    let hosts = [(s.registry.host(), with(&s, vec![Mirror::new(torn.url())]))].into();
    let mut config = ClientConfig { hosts, observer: Some(pauses.clone()), ..config() };
    config.timeouts.mirror_pause = Duration::from_millis(50);
    let client = Client::new(config).unwrap();
    for _ in 0..2 {
        assert_eq!(blob(&client, &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(*pauses.0.lock().unwrap(), [50, 100].map(Duration::from_millis), "headers are no success");
}

#[tokio::test]
async fn an_image_beyond_a_limit_is_not_its_mirrors_fault() {
    let s = setup(Options::default()).await;
    let full = mirror_of(Options::default(), "").await;
    let hosts = [(s.registry.host(), with(&s, vec![Mirror::new(full.url())]))].into();
    let client = Client::new(ClientConfig { hosts, max_manifest_bytes: 10, ..config() }).unwrap();
    let e = pull(&client, &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ResourceExhausted, "{e}");
    s.registry.clear_requests();
    client.resolve(&s.reference, &ANON).await.unwrap();
    assert!(s.registry.requests().is_empty(), "the mirror is asked first still");
}

#[tokio::test]
async fn a_transfer_goes_on_at_the_next_place() {
    let s = setup(Options::default()).await;
    let torn = mirror_of(Options::default(), "").await;
    torn.inject(When::blob(&s.layer.digest), Fault::Truncate { after: 1000 });
    let client = client_for(&s.registry.host(), with(&s, vec![Mirror::new(torn.url())]));
    assert_eq!(blob(&client, &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
    let resumed: Vec<_> =
        s.registry.requests().iter().map(|r| r.header("range").unwrap_or_default().to_owned()).collect();
    assert_eq!(resumed, ["bytes=2000-"], "two attempts at the mirror, each of 1000 bytes");
}

#[tokio::test]
async fn a_mirror_that_lies_is_found_out_and_left_alone() {
    let s = setup(Options::default()).await;
    let liar = mirror_of(Options::default(), "").await;
    liar.inject(When::path("sha256"), Fault::Corrupt);
    let client = client_for(&s.registry.host(), with(&s, vec![Mirror::new(liar.url())]));
    // Manifest and configuration are checked here; the mirror's manifest is a lie, so it is asked for nothing more.
    pull(&client, &s.reference, &ANON).await.unwrap();
    // A layer's digest is checked by who unpacks it.
    let client =
        client_for(&s.registry.host(), HostConfig { mirrors: vec![Mirror::new(liar.url())], ..HostConfig::default() });
    let stream = client.blob(&s.reference, &s.layer, &ANON, 0).await.unwrap();
    let mirrors = stream.mirrors();
    assert_eq!(mirrors, [liar.url()]);
    let (mut one, mut other) = (Liars::default(), Liars::default());
    assert!(client.blame_all(&s.reference, &mirrors, &mut one), "asking again may help");
    assert!(
        client.blame_all(&s.reference, &mirrors, &mut other),
        "for another blob too, though it is left alone by now"
    );
    assert_eq!(blob(&client, &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
    assert!(!client.blame_all(&s.reference, &[], &mut one));
    assert!(!client.blame_all(&s.reference, &mirrors, &mut one), "who lied twice is not asked a third time");
}

#[tokio::test]
async fn errors_name_all_who_were_asked() {
    let s = setup(Options::default()).await;
    let empty = Registry::start(Options::default()).await.unwrap();
    let gone = Registry::start(Options::default()).await.unwrap().url();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mirrors = vec![Mirror::new(empty.url()), Mirror::new(gone.clone())];
    let never = HostConfig { mirrors_only: true, mirrors: mirrors.clone(), ..HostConfig::default() };
    let e = pull(&client_for(&s.registry.host(), never), &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unknown);
    assert!(e.message().starts_with("RegistryUnavailable: ") && e.message().contains(&gone), "{e}");
    assert!(e.message().contains(&empty.url()) && e.message().contains("fallback: Never"), "{e}");
    assert!(s.registry.requests().is_empty());

    let never = HostConfig { mirrors_only: true, mirrors: mirrors[..1].to_vec(), ..HostConfig::default() };
    let e = pull(&client_for(&s.registry.host(), never), &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    s.registry.inject(When::any(), Fault::Status { code: 404, retry_after: None });
    let allow = HostConfig { mirrors, ..HostConfig::default() };
    let e = pull(&client_for(&s.registry.host(), allow), &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "the registry's own word: {e}");
    assert!(e.message().contains(&gone), "{e}");
}

/// Whether this registry was ever shown the credential.
fn was_shown(registry: &Registry) -> bool {
    registry.requests().iter().any(|r| r.header("authorization").is_some())
}

#[tokio::test]
async fn credentials_go_to_a_mirror_only_where_it_is_said() {
    let s = setup(basic()).await;
    let mirror = mirror_of(basic(), "").await;
    let host = mirror.host();
    let (host, address) = (host.as_str(), |server| {
        let fields =
            Credentials { username: "user", password: "sesame", server_address: server, ..Credentials::default() };
        Auth::from_cri(&fields, &s.registry.host()).unwrap()
    });
    let cases = [
        (MirrorCredentials::Own, user("sesame"), false),
        (MirrorCredentials::None, user("sesame"), false),
        (MirrorCredentials::Registry, user("sesame"), true),
        (MirrorCredentials::Own, address(host), true),
        (MirrorCredentials::None, address(host), false),
        (MirrorCredentials::Registry, address("other.example"), false),
    ];
    for (credentials, auth, shown) in cases {
        mirror.clear_requests();
        let mirrors = vec![Mirror { credentials, ..Mirror::new(mirror.url()) }];
        let client = client_for(&s.registry.host(), HostConfig { mirrors, ..HostConfig::default() });
        let result = pull(&client, &s.reference, &auth).await;
        assert!(!mirror.requests().is_empty());
        assert_eq!(was_shown(&mirror), shown, "{credentials:?} {auth:?}");
        assert_eq!(result.is_ok(), shown || auth == user("sesame"), "{credentials:?} {auth:?}");
    }
}

#[tokio::test]
async fn tls_of_each_mirror_is_its_own() {
    let s = setup(Options::default()).await;
    let mirror = mirror_of(Options { tls: true, client_certificate: true, ..Options::default() }, "").await;
    let (cert, key) = mirror.client_identity().unwrap();
    let client_certificate = ClientIdentity { cert_pem: cert.into(), key_pem: key.into() };
    let ca_pem = vec![mirror.ca_pem().unwrap().to_owned()];
    let named = Tls {
        ca_pem: ca_pem.clone(),
        client: Some(client_certificate.clone()),
        server_name: Some("localhost".into()),
        ..Tls::default()
    };
    let cases = [
        (Tls { client: Some(client_certificate), ca_pem: ca_pem.clone(), ..Tls::default() }, true),
        (named.clone(), true),
        (Tls { server_name: Some("other.example".into()), ..named }, false),
        (Tls { ca_pem, ..Tls::default() }, false),
        (Tls::default(), false),
    ];
    for (tls, good) in cases {
        let mirrors = vec![Mirror { tls: tls.clone(), ..Mirror::new(mirror.url()) }];
        let only = HostConfig { mirrors, mirrors_only: true, ..HostConfig::default() };
        let result = pull(&client_for(&s.registry.host(), only), &s.reference, &ANON).await;
        assert_eq!(result.is_ok(), good, "{tls:?}: {:?}", result.err());
        // The settings of the mirror's own host do as well.
        let hosts = [
            (
                s.registry.host(),
                HostConfig { mirrors: vec![Mirror::new(mirror.url())], mirrors_only: true, ..HostConfig::default() },
            ),
            (mirror.host(), HostConfig { tls, ..HostConfig::default() }),
        ];
        let client = Client::new(ClientConfig { hosts: hosts.into(), ..config() }).unwrap();
        assert_eq!(pull(&client, &s.reference, &ANON).await.is_ok(), good);
    }
    assert!(mirror.h2_connections() > 0, "HTTP/2 is spoken where it is offered");
}

#[tokio::test]
async fn patterns_and_headers_apply() {
    let s = setup(Options::default()).await;
    let full = mirror_of(Options::default(), "").await;
    let mut mirror = Mirror::new(full.url());
    mirror.headers = vec![("X-Team".into(), "blue".into())];
    let headers = vec![("X-Team".into(), "red".into())];
    let settings = HostConfig { mirrors: vec![mirror], headers, ..HostConfig::default() };
    pull(&client_for("*", settings), &s.reference, &ANON).await.unwrap();
    assert!(full.requests().iter().all(|r| r.header("x-team") == Some("blue")));
    full.inject(When::any(), Fault::Status { code: 404, retry_after: None });
    let mirrors = vec![Mirror::new(full.url())];
    let headers = vec![("X-Team".into(), "red".into())];
    pull(&client_for("*", HostConfig { mirrors, headers, ..HostConfig::default() }), &s.reference, &ANON)
        .await
        .unwrap();
    assert!(s.registry.requests().iter().all(|r| r.header("x-team") == Some("red")));
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<String>>);

impl Observer for Seen {
    fn observe(&self, observation: &Observation<'_>) {
        let text = match observation {
            Observation::Request { place, phase, outcome, .. } => {
                format!("{} {} {}", place.mirror.unwrap_or("itself"), phase.label(), outcome.label())
            }
            Observation::Bytes { place, .. } => format!("{} bytes", place.mirror.unwrap_or("itself")),
            Observation::MirrorPaused { place, .. } => format!("{} paused", place.mirror.unwrap_or("itself")),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

#[tokio::test]
async fn who_served_what_is_told() {
    let s = setup(Options::default()).await;
    let sick = mirror_of(Options::default(), "").await;
    sick.inject(When::any(), Fault::Status { code: 500, retry_after: None });
    let seen = Arc::new(Seen::default());
    let hosts = [(s.registry.host(), with(&s, vec![Mirror::new(sick.url())]))].into();
    let client = Client::new(ClientConfig { hosts, observer: Some(seen.clone()), ..config() }).unwrap();
    pull(&client, &s.reference, &ANON).await.unwrap();
    let seen = seen.0.lock().unwrap().clone();
    let url = sick.url();
    for expected in [
        format!("{url} resolve failed"),
        format!("{url} paused"),
        "itself resolve ok".into(),
        "itself manifest ok".into(),
        "itself blob ok".into(),
        "itself bytes".into(),
    ] {
        assert!(seen.contains(&expected), "{expected} is missing: {seen:?}");
    }
}
