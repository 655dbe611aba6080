//! Credentials: every way to present them, and every place they must not reach.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use base64::Engine as _;
use berth_model::ErrorKind;
use berth_registry::{Auth, HostConfig};
use berth_test_registry::{AuthMode, Fault, Options, Registry, TokenAuth, When};
use common::{blob, client, client_for, pull, setup, user};
use std::net::Ipv4Addr;

fn basic() -> Options {
    let auth = AuthMode::Basic { username: "user".into(), password: "sesame".into() };
    Options { auth, ..Options::default() }
}

fn token(change: impl FnOnce(&mut TokenAuth)) -> Options {
    let mut auth = TokenAuth { password: "sesame".into(), ..TokenAuth::default() };
    change(&mut auth);
    Options { auth: AuthMode::Token(auth), ..Options::default() }
}

/// Everything that this registry was ever sent has no trace of the credential.
fn assert_clean(registry: &Registry) {
    let encoded = base64::engine::general_purpose::STANDARD.encode("user:sesame");
    for request in registry.requests() {
        let all = format!("{request:?}");
        assert!(!all.contains("sesame") && !all.contains(&encoded) && !all.contains("token-"), "leaked: {all}");
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn basic_right_wrong_and_absent() {
    let s = setup(basic()).await;
    pull(&client(), &s.reference, &user("sesame")).await.unwrap();
    for (auth, why) in [
        (user("wrong"), "the credentials do not allow it"),
        (Auth::Anonymous, "user name and a password"),
        (Auth::IdentityToken("x".into()), "user name and a password"),
    ] {
        let e = client().resolve(&s.reference, &auth).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
        assert!(e.message().contains(&s.registry.host()) && e.message().contains("team/app"), "{e}");
        assert!(e.message().contains(why) && !e.message().contains("wrong"), "{e}");
    }
}

#[tokio::test]
async fn tokens_are_fetched_once_per_repository() {
    let s = setup(token(|_| ())).await;
    let client = client();
    for _ in 0..3 {
        pull(&client, &s.reference, &user("sesame")).await.unwrap();
    }
    let asked: Vec<_> = s.registry.requests().into_iter().filter(|r| r.path == "/token").collect();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].query.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{}", asked[0].query);
    let refused = s.registry.requests().iter().filter(|r| r.status == 401).count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn one_users_token_serves_nobody_else() {
    let s = setup(token(|_| ())).await;
    let client = client();
    pull(&client, &s.reference, &user("sesame")).await.unwrap();
    for other in [Auth::Anonymous, user("wrong")] {
        let e = pull(&client, &s.reference, &other).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    }
}

#[tokio::test]
async fn anonymous_and_identity_tokens() {
    let open = setup(token(|t| t.anonymous_pull = true)).await;
    pull(&client(), &open.reference, &Auth::Anonymous).await.unwrap();
    let s = setup(token(|t| t.identity_token = Some("refresh me & more".into()))).await;
    pull(&client(), &s.reference, &Auth::IdentityToken("refresh me & more".into())).await.unwrap();
    let asked = s.registry.requests().into_iter().find(|r| r.path == "/token").unwrap();
    assert_eq!((asked.method.as_str(), asked.query.as_str()), ("POST", ""));
    let e = pull(&client(), &s.reference, &Auth::IdentityToken("stolen".into())).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    assert!(!e.message().contains("stolen"), "{e}");
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let s = setup(token(|_| ())).await;
    let granted = s.registry.issue_token(&["repository:team/app:pull"]);
    pull(&client(), &s.reference, &Auth::RegistryToken(granted.into())).await.unwrap();
    assert!(s.registry.requests().iter().all(|r| r.path != "/token" && r.status == 200));
    let e = pull(&client(), &s.reference, &Auth::RegistryToken("forged".into())).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_token_that_expires_during_a_pull_is_renewed() {
    let s = setup(token(|_| ())).await;
    let client = client();
    let auth = user("sesame");
    client.resolve(&s.reference, &auth).await.unwrap();
    s.registry.revoke_tokens();
    let bytes = blob(&client, &s.reference, &s.layer, &auth).await.unwrap();
    assert_eq!(bytes, s.layer_bytes);
    assert_eq!(s.registry.count(&When::path("/token")), 2);
}

#[tokio::test]
async fn a_proof_that_was_refused_is_not_shown_again() {
    for code in [401, 403] {
        let s = setup(token(|_| ())).await;
        let client = client();
        let auth = user("sesame");
        client.resolve(&s.reference, &auth).await.unwrap();
        s.registry.inject(When::path("/manifests/"), Fault::Status { code, retry_after: None });
        let e = client.resolve(&s.reference, &auth).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e}");
        s.registry.clear_faults();
        s.registry.clear_requests();
        client.resolve(&s.reference, &auth).await.unwrap();
        assert_eq!(s.registry.count(&When::path("/token")), 1, "a new proof after {code}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credential() {
    let cdn = Registry::start(Options::default()).await.unwrap();
    for options in [basic(), token(|_| ())] {
        let s = setup(options).await;
        cdn.clear_requests();
        cdn.put_blob(s.layer_bytes.clone());
        let away = format!("{}/v2/x/blobs/{}?signature=topsecret", cdn.url(), s.layer.digest);
        s.registry.inject(When::blob(&s.layer.digest), Fault::Redirect(away));
        let bytes = blob(&client(), &s.reference, &s.layer, &user("sesame")).await.unwrap();
        assert_eq!(bytes, s.layer_bytes);
        assert_eq!(cdn.requests().len(), 1);
        assert_clean(&cdn);
        cdn.remove_blob(&s.layer.digest);
    }
}

#[tokio::test]
async fn a_foreign_host_that_asks_for_credentials_gets_none() {
    let thief = Registry::start(basic()).await.unwrap();
    let s = setup(basic()).await;
    let away = format!("{}/v2/team/app/blobs/{}?sig=topsecret", thief.url(), s.layer.digest);
    s.registry.inject(When::blob(&s.layer.digest), Fault::Redirect(away));
    let e = blob(&client(), &s.reference, &s.layer, &user("sesame")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    assert!(!e.message().contains("topsecret") && !e.message().contains("sesame"), "{e}");
    assert!(!thief.requests().is_empty());
    assert_clean(&thief);
}

#[tokio::test]
async fn the_credential_stays_behind_when_the_way_leads_back() {
    let s = setup(basic()).await;
    let relay = Registry::start(Options::default()).await.unwrap();
    let back = format!("{}/v2/team/app/blobs/{}?again", s.registry.url(), s.layer.digest);
    relay.inject(When::any(), Fault::Redirect(back));
    s.registry.inject_times(When::blob(&s.layer.digest), Fault::Redirect(format!("{}/x", relay.url())), 1);
    let e = blob(&client(), &s.reference, &s.layer, &user("sesame")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    let last = s.registry.requests().pop().unwrap();
    assert_eq!((last.query.as_str(), last.header("authorization")), ("again", None));
    assert_clean(&relay);
}

#[tokio::test]
async fn a_token_server_without_https_is_asked_nothing() {
    for realm in
        ["http://auth.example/token", "http://169.254.169.254/latest", "ftp://a/b", "/token", "http://u@127.0.0.1/t"]
    {
        let s = setup(token(|t| t.realm = Some(realm.into()))).await;
        let e = client().resolve(&s.reference, &user("sesame")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{realm}: {e}");
        assert!(e.message().contains("token server"), "{e}");
        assert_eq!(s.registry.requests().len(), 1);
    }
}

/// `0.0.0.0` leads to this machine and yet is not loopback by name: a stand-in for any host of a network.
#[tokio::test]
async fn credentials_never_travel_over_plain_http() {
    let s = setup(Options { bind: Ipv4Addr::UNSPECIFIED.into(), ..basic() }).await;
    let host = s.registry.host();
    assert!(host.starts_with("0.0.0.0:"));
    let client = client_for(&host, HostConfig { plain_http: true, ..HostConfig::default() });
    for auth in [user("sesame"), Auth::RegistryToken("sesame".into()), Auth::IdentityToken("sesame".into())] {
        let e = client.resolve(&s.reference, &auth).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
        assert!(e.message().contains("plain HTTP"), "{e}");
    }
    assert_eq!(s.registry.requests().len(), 3);
    assert_clean(&s.registry);
}

#[tokio::test]
async fn plain_http_must_be_allowed_beyond_loopback() {
    let s = setup(Options { bind: Ipv4Addr::UNSPECIFIED.into(), ..Options::default() }).await;
    let e = client().resolve(&s.reference, &Auth::Anonymous).await.unwrap_err();
    assert!(e.message().starts_with("RegistryUnavailable: "), "{e}");
    assert!(s.registry.requests().is_empty());
    let client = client_for(&s.registry.host(), HostConfig { plain_http: true, ..HostConfig::default() });
    pull(&client, &s.reference, &Auth::Anonymous).await.unwrap();
}
