//! What an API server, or a proxy before it, may answer: HTML, 500 and 429 are waited out, and everything is known in the end.
// A test may fail loudly.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use berth_operator::cluster::Stores;
use berth_operator::observe::Metrics;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const KINDS: usize = 6;

/// Answers each connection's one request: the first of all kinds badly, then lists, then watches that stay open.
fn server(asked: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let asked = Arc::clone(&asked);
            std::thread::spawn(move || one(stream.unwrap(), &asked));
        }
    });
    address
}

fn one(mut stream: TcpStream, asked: &AtomicUsize) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let number = asked.fetch_add(1, Ordering::Relaxed);
    let bad = ["200 OK", "500 Internal Server Error", "429 Too Many Requests"].get(number % 7).copied();
    let (status, kind, body) = match bad.filter(|_| number < 4 * KINDS) {
        Some(status) => (status, "text/html", "<html><body>One moment, please</body></html>".to_owned()),
        None if request.contains("watch=true") => {
            std::thread::sleep(Duration::from_secs(30));
            return;
        }
        None => ("200 OK", "application/json", list(&request)),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

fn list(request: &str) -> String {
    let item = if request.contains("/runtimeconfigs") {
        r#"{"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "a", "uid": "1"}, "spec": {}}"#
    } else {
        ""
    };
    format!(r#"{{"apiVersion": "v1", "kind": "List", "metadata": {{"resourceVersion": "1"}}, "items": [{item}]}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_answers_are_waited_out() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let asked = Arc::new(AtomicUsize::new(0));
    let address = server(Arc::clone(&asked));
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    // What the client itself would try again is not what is tested here.
    config.default_retry = false;
    let metrics = Metrics::new("0").unwrap();
    let stores = Stores::watch(&kube::Client::try_from(config).unwrap(), &metrics, "berth-system", "a=b");
    let end = Instant::now() + Duration::from_secs(60);
    while !stores.synced() {
        assert!(Instant::now() < end, "not synced after {} requests", asked.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stores.world().configs.contains_key("a"));
    let text = String::from_utf8(metrics.text()).unwrap();
    assert!(text.contains("berth_operator_watch_errors_total{kind="), "{text}");
}
