//! Connections to servers, through a proxy where one is set.
//!
//! Owns: CONNECT, and what a proxy may answer. Must not: choose the proxy ([`crate::proxy`] does), speak TLS.
use crate::endpoint;
use crate::proxy::{Proxy, ProxyConfig};
use http::Uri;
use http::uri::Scheme;
use hyper::rt;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service;

/// Longest answer of a proxy to CONNECT.
const MAX_ANSWER: usize = 8 << 10;

/// Makes connections.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    proxy: Arc<ProxyConfig>,
    limit: Duration,
}

impl Connector {
    pub fn new(proxy: Arc<ProxyConfig>, limit: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        Self { tcp, proxy, limit }
    }
}

/// A TCP connection, and whether requests on it are for a proxy.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl rt::Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (mut tcp, config, limit) = (self.tcp.clone(), self.proxy.clone(), self.limit);
        Box::pin(async move {
            let Some(proxy) = config.choose(&target) else {
                let io = tcp.call(target).await.map_err(plain)?;
                return Ok(Stream { io, proxied: false });
            };
            let uri: Uri = format!("http://{}", proxy.authority).parse().map_err(io::Error::other)?;
            let mut io = tcp.call(uri).await.map_err(|e| of_proxy(proxy, &plain(e)))?;
            if target.scheme() != Some(&Scheme::HTTPS) {
                return Ok(Stream { io, proxied: true });
            }
            match tokio::time::timeout(limit, tunnel(io.inner_mut(), proxy, &target)).await {
                Ok(Ok(())) => Ok(Stream { io, proxied: false }),
                Ok(Err(e)) => Err(of_proxy(proxy, &e)),
                Err(_) => Err(of_proxy(proxy, &io::Error::other("did not answer in time"))),
            }
        })
    }
}

/// What lies below the connector's own error.
fn plain(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    let mut deepest: &dyn std::error::Error = &e;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    io::Error::other(deepest.to_string())
}

fn of_proxy(proxy: &Proxy, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("proxy {}: {e}", proxy.authority))
}

/// Asks the proxy for a way to the target (RFC 9110, 9.3.6).
async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, target: &Uri) -> io::Result<()> {
    let host = target.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
    let authority = format!("{}:{}", endpoint::without_port(host), target.port_u16().unwrap_or(443));
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(value) = proxy.authorization() {
        request.push_str(&format!("Proxy-Authorization: {}\r\n", value.expose()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_ANSWER {
            return Err(io::Error::other("its answer to CONNECT is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    match status(&answer) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(io::Error::other("wants a user name and a password (407), or other ones")),
        Some(code) => Err(io::Error::other(format!("does not connect to {authority} ({code})"))),
        None => Err(io::Error::other("does not speak HTTP")),
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer).ok()?.lines().next()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}
