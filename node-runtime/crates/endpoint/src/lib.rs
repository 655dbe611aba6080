//! The HTTP endpoint for probes and scrapes that daemon, agent and operator each have.
//!
//! Owns: connections and their limits, the form of an answer. Must not: know what is asked for; each process gives its pages.
#![forbid(unsafe_code)]
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Clients served at a time; more wait.
pub const CONNECTIONS: usize = 16;
/// How long a client may take to send its request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take in all: a client that does not read must not take the place of a probe.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// Prometheus' text format 0.0.4. A scraper of version 3 refuses an answer without a type.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    status: StatusCode,
    body: Vec<u8>,
}

impl Page {
    /// 200, with that text.
    pub fn ok(text: impl Into<Vec<u8>>) -> Self {
        Self { status: StatusCode::OK, body: text.into() }
    }

    /// 503: not ready, or not alive.
    pub fn unavailable(why: &str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: format!("{why}\n").into_bytes() }
    }

    /// 500: what was asked for could not be made.
    pub fn failed(why: &str) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body: format!("{why}\n").into_bytes() }
    }

    /// 404, with the paths that there are.
    pub fn not_found(paths: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, body: format!("{paths}\n").into_bytes() }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        response
    }
}

/// Listens on an address or, without one, on that port of all addresses of both families; of IPv4 alone where the kernel has no IPv6.
pub async fn listen(address: Option<SocketAddr>, port: u16) -> io::Result<TcpListener> {
    let all = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    let addresses = address.map_or(all.to_vec(), |address| vec![address]);
    TcpListener::bind(&addresses[..]).await.map_err(|e| io::Error::new(e.kind(), format!("{addresses:?}: {e}")))
}

/// Serves for as long as it is polled: to each GET the page of its path. `room` has a permit for each connection at a time.
pub async fn serve<P, F>(listener: TcpListener, room: Arc<Semaphore>, pages: P)
where
    P: Fn(String) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Page> + Send,
{
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                tokio::spawn(async move {
                    connection(stream, pages).await;
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<P, F>(stream: TcpStream, pages: P)
where
    P: Fn(String) -> F,
    F: Future<Output = Page>,
{
    let answer = service_fn(|request: Request<Incoming>| {
        let page = (request.method() == Method::GET).then(|| pages(request.uri().path().to_owned()));
        async move {
            let only_get = || Page { status: StatusCode::METHOD_NOT_ALLOWED, body: b"only GET\n".to_vec() };
            Ok::<_, Infallible>(match page {
                Some(page) => page.await.into_response(),
                None => only_get().into_response(),
            })
        }
    });
    // One request each: the limit must not cut off a second one that has just come.
    let mut builder = hyper::server::conn::http1::Builder::new();
    let builder = builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let served = builder.serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!(error = %e, "a connection ended early"),
        Err(_) => tracing::debug!("a client took too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn served(connections: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = |path: String| async move {
            match path.as_str() {
                "/metrics" => Page::ok("berth_up 1\n"),
                "/large" => Page::ok(vec![b'x'; 64 << 20]),
                "/readyz" => Page::unavailable("not yet"),
                _ => Page::not_found("/metrics /readyz"),
            }
        };
        tokio::spawn(serve(listener, Arc::new(Semaphore::new(connections)), pages));
        address
    }

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages_have_their_status_and_a_type() {
        let at = served(CONNECTIONS).await;
        for (head, status, text) in [
            ("GET /metrics", "200", "berth_up 1\n"),
            ("GET /readyz", "503", "not yet\n"),
            ("GET /other", "404", "/metrics /readyz\n"),
            ("POST /metrics", "405", "only GET\n"),
        ] {
            let answer = ask(at, head).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(text), "{head}: {answer}");
            assert!(answer.contains(&format!("content-type: {TEXT}\r\n")), "{answer}");
        }
    }

    #[tokio::test]
    async fn without_an_address_both_families_are_heard() {
        let listener = listen(None, 0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        // A kernel without IPv6 has no loopback of it either.
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            assert!(listener.local_addr().unwrap().is_ipv6());
        }
        let one = listen(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), port).await.unwrap();
        assert_eq!(one.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    }

    /// One that asks and does not read, and one that does not ask: both go, and the next one has its turn.
    #[tokio::test(start_paused = true)]
    async fn who_takes_too_long_makes_room() {
        let at = served(1).await;
        for head in ["GET /large HTTP/1.1\r\nhost: x\r\n\r\n", "GET /met"] {
            let mut slow = TcpStream::connect(at).await.unwrap();
            slow.write_all(head.as_bytes()).await.unwrap();
            let next = tokio::time::timeout(CONNECTION_LIMIT * 2, ask(at, "GET /metrics")).await;
            assert!(next.is_ok_and(|answer| answer.ends_with("berth_up 1\n")), "after {head:?}");
        }
    }
}
