//! Pulls through a proxy: CONNECT with credentials for HTTPS, absolute requests for plain HTTP, exceptions.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::Reference;
use berth_registry::{Auth, Client, ClientConfig, HostConfig, NoProxy, Proxy, ProxyConfig, Tls};
use berth_test_registry::{Options, Registry};
use common::{config, image, pull};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANON: Auth = Auth::Anonymous;
const PASSWORD: &str = "Basic dXNlcjpzZXNhbWU="; // user:sesame

/// A proxy that knows one server, whatever name it is asked for, and keeps the heads of requests.
struct TestProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = heads.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Self::serve(client, server, kept.clone()));
            }
        });
        Self { address, heads }
    }

    async fn serve(mut client: TcpStream, server: SocketAddr, heads: Arc<Mutex<Vec<String>>>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = client.read_u8().await else { return };
            head.push(byte);
        }
        let text = String::from_utf8(head).unwrap();
        heads.lock().unwrap().push(text.clone());
        if !text.to_ascii_lowercase().contains(&format!("proxy-authorization: {}", PASSWORD.to_ascii_lowercase())) {
            let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await;
            return;
        }
        let mut upstream = TcpStream::connect(server).await.unwrap();
        if text.starts_with("CONNECT ") {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        } else {
            // From absolute to origin form; one request a connection.
            let (method, rest) = text.split_once(' ').unwrap();
            let path = rest.split_once("://").unwrap().1.split_once('/').unwrap().1;
            let fresh = format!("{method} /{}", path.replacen("\r\n", "\r\nConnection: close\r\n", 1));
            upstream.write_all(fresh.as_bytes()).await.unwrap();
        }
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    }

    fn with(&self, credentials: &str) -> Proxy {
        Proxy::parse("p", &format!("http://{credentials}{}", self.address)).unwrap()
    }
}

async fn registry(tls: bool) -> (Registry, Reference) {
    let registry = Registry::start(Options { tls, ..Options::default() }).await.unwrap();
    registry.push_image(&image()).unwrap();
    // A name that only the proxy can resolve.
    (registry, Reference::parse("registry.invalid:5443/team/app:v1").unwrap())
}

fn client(proxy: ProxyConfig, host: HostConfig) -> Client {
    Client::new(ClientConfig { proxy, hosts: [("registry.invalid:5443".to_owned(), host)].into(), ..config() }).unwrap()
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let (registry, reference) = registry(true).await;
    let proxy = TestProxy::start(registry.addr()).await;
    let tls = Tls {
        ca_pem: vec![registry.ca_pem().unwrap().into()],
        server_name: Some("localhost".into()),
        ..Tls::default()
    };
    let host = || HostConfig { tls: tls.clone(), ..HostConfig::default() };
    let through = |p: Proxy| ProxyConfig { https: Some(p), ..ProxyConfig::default() };
    pull(&client(through(proxy.with("user:sesame@")), host()), &reference, &ANON).await.unwrap();
    let heads = proxy.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|h| h.starts_with("CONNECT registry.invalid:5443 HTTP/1.1\r\n")), "{heads:?}");
    assert!(registry.requests().iter().all(|r| r.header("proxy-authorization").is_none()));

    let e = pull(&client(through(proxy.with("user:wrong@")), host()), &reference, &ANON).await.unwrap_err();
    assert!(e.message().contains("407") && e.message().contains(&proxy.address.to_string()), "{e}");
    assert!(!e.message().contains("wrong"), "{e}");
}

#[tokio::test]
async fn plain_http_is_asked_of_the_proxy() {
    let (registry, reference) = registry(false).await;
    let proxy = TestProxy::start(registry.addr()).await;
    let config = ProxyConfig { http: Some(proxy.with("user:sesame@")), ..ProxyConfig::default() };
    let host = HostConfig { plain_http: true, ..HostConfig::default() };
    pull(&client(config, host), &reference, &ANON).await.unwrap();
    let heads = proxy.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|h| h.contains(" http://registry.invalid:5443/v2/team/app/")), "{heads:?}");
}

#[tokio::test]
async fn exceptions_and_loopback_go_past_it() {
    let (registry, reference) = registry(false).await;
    let proxy = TestProxy::start(registry.addr()).await;
    let exceptions = NoProxy::parse(".invalid");
    let config =
        ProxyConfig { http: Some(proxy.with("")), https: Some(proxy.with("")), exceptions, ..ProxyConfig::default() };
    let host = HostConfig { plain_http: true, ..HostConfig::default() };
    let client = client(config, host);
    assert!(pull(&client, &reference, &ANON).await.unwrap_err().message().contains("cannot be reached"));
    let near = Reference::parse(&registry.reference("team/app:v1")).unwrap();
    pull(&client, &near, &ANON).await.unwrap();
    assert!(proxy.heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn settings_that_cannot_be_applied_send_nothing() {
    let (registry, _) = registry(false).await;
    let near = Reference::parse(&registry.reference("team/app:v1")).unwrap();
    let proxy = ProxyConfig { unusable: Some("its file is missing".into()), ..ProxyConfig::default() };
    let e = pull(&client(proxy, HostConfig::default()), &near, &ANON).await.unwrap_err();
    assert!(e.message().contains("its file is missing"), "{e}");
    assert!(registry.requests().is_empty());
}
