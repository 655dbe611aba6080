//! TLS: own CAs, none, and the choice of scheme on loopback.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::{ErrorKind, Reference};
use berth_registry::{Auth, Client, ClientConfig, HostConfig, Tls};
use berth_test_registry::{AuthMode, Fault, Options, Registry, TokenAuth, When};
use common::{client, client_for, config, pull, setup, user};
use std::net::{IpAddr, Ipv6Addr};
use tokio::io::AsyncWriteExt;

fn tls() -> Options {
    Options { tls: true, ..Options::default() }
}

fn settings(tls: Tls) -> HostConfig {
    HostConfig { tls, ..HostConfig::default() }
}

fn trusting(registry: &Registry) -> HostConfig {
    settings(Tls { ca_pem: vec![registry.ca_pem().unwrap().to_owned()], ..Tls::default() })
}

#[tokio::test]
async fn an_own_ca_is_trusted_for_its_registry() {
    let s = setup(tls()).await;
    let client = client_for(&s.registry.host(), trusting(&s.registry));
    assert_eq!(pull(&client, &s.reference, &Auth::Anonymous).await.unwrap(), [s.layer_bytes.to_vec()]);
    let six = setup(Options { bind: IpAddr::V6(Ipv6Addr::LOCALHOST), ..tls() }).await;
    pull(&client_for(&six.registry.host(), trusting(&six.registry)), &six.reference, &Auth::Anonymous).await.unwrap();
}

#[tokio::test]
async fn an_unknown_ca_is_refused_once_and_never_downgraded() {
    let s = setup(tls()).await;
    let other = setup(tls()).await;
    for client in [client(), client_for(&s.registry.host(), trusting(&other.registry))] {
        let e = client.resolve(&s.reference, &Auth::Anonymous).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unknown);
        assert!(e.message().starts_with("RegistryUnavailable: ") && e.message().contains("not trusted"), "{e}");
    }
    assert!(s.registry.requests().is_empty());
}

#[tokio::test]
async fn checks_can_be_turned_off_for_one_registry() {
    let s = setup(tls()).await;
    let client = client_for(&s.registry.host(), settings(Tls { insecure_skip_verify: true, ..Tls::default() }));
    pull(&client, &s.reference, &Auth::Anonymous).await.unwrap();
    let other = setup(tls()).await;
    assert!(client.resolve(&other.reference, &Auth::Anonymous).await.is_err());
}

#[tokio::test]
async fn a_name_that_the_certificate_lacks_is_refused() {
    let s = setup(tls()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let relay = listener.local_addr().unwrap();
    let to = s.registry.addr();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let client = client_for(&relay.to_string(), trusting(&s.registry));
    let reference = Reference::parse(&format!("{relay}/team/app:v1")).unwrap();
    let e = client.resolve(&reference, &Auth::Anonymous).await.unwrap_err();
    assert!(e.message().contains("not trusted"), "{e}");
    assert!(s.registry.requests().is_empty());
}

#[tokio::test]
async fn a_setting_for_tls_means_tls_on_loopback_too() {
    let plain = setup(Options::default()).await;
    let donor = setup(tls()).await;
    let client = client_for(&plain.registry.host(), trusting(&donor.registry));
    assert!(client.resolve(&plain.reference, &Auth::Anonymous).await.is_err());
    assert!(plain.registry.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_that_is_none_is_refused_at_once() {
    for pem in ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = settings(Tls { ca_pem: vec![pem.into()], ..Tls::default() });
        let hosts = [("r.example".to_owned(), settings)].into();
        let e = Client::new(ClientConfig { hosts, ..config() }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        assert!(e.message().contains("r.example"), "{e}");
    }
}

#[tokio::test]
async fn tls_is_never_lost_on_a_redirect() {
    let s = setup(tls()).await;
    let plain = setup(Options::default()).await;
    let away = format!("{}/v2/team/app/blobs/{}", plain.registry.url(), s.layer.digest);
    s.registry.inject(When::blob(&s.layer.digest), Fault::Redirect(away));
    let client = client_for(&s.registry.host(), trusting(&s.registry));
    let e = client.blob(&s.reference, &s.layer, &Auth::Anonymous, 0).await.unwrap_err();
    assert!(e.message().contains("must not follow"), "{e}");
    assert!(plain.registry.requests().is_empty());
}

#[tokio::test]
async fn tokens_over_tls_with_the_registrys_ca() {
    let auth = AuthMode::Token(TokenAuth { password: "sesame".into(), ..TokenAuth::default() });
    let s = setup(Options { auth, ..tls() }).await;
    let client = client_for(&s.registry.host(), trusting(&s.registry));
    pull(&client, &s.reference, &user("sesame")).await.unwrap();
    assert_eq!(s.registry.count(&When::path("/token")), 1);
}

#[tokio::test]
async fn a_loopback_server_that_is_mute_to_tls_gets_plain_http() {
    // Reads whole lines and says nothing to a greeting that has none: the probe's time limit decides.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = tokio::io::BufReader::new(read);
                let mut first = String::new();
                if tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut first).await.is_ok()
                    && first.starts_with("HEAD ")
                {
                    write.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                } else {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let reference = Reference::parse(&format!("{addr}/app:v1")).unwrap();
    let e = client().resolve(&reference, &Auth::Anonymous).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}
