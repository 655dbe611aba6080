//! A server that answers as it is told: each request's line and body go to a function. Notes what it was asked.
use berth_operator::cluster::lease::{self, Candidate};
use berth_operator::cluster::{Clock, Leadership, client};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The time that it tells.
pub const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET /api/v1/nodes?limit=1`.
    pub line: String,
    pub token: Option<String>,
    pub body: Value,
}

pub enum Answer {
    Json(u16, Value),
    Html(u16),
    /// The connection stays open, and nothing comes.
    Nothing,
}

pub struct Server {
    pub address: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (noted, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream.unwrap(), &noted, answer.as_ref()));
            }
        });
        Self { address, asked }
    }

    /// Requests whose line has that in it.
    pub fn asked(&self, what: &str) -> Vec<Request> {
        self.asked.lock().unwrap().iter().filter(|r| r.line.contains(what)).cloned().collect()
    }

    pub fn config(&self) -> kube::Config {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        kube::Config::new(format!("http://{}", self.address).parse().unwrap())
    }

    pub fn client(&self) -> kube::Client {
        client::of(self.config(), &Clock::default()).unwrap()
    }
}

fn serve(mut stream: TcpStream, noted: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let field = |name: &str| {
        let line = head.lines().find(|l| l.to_lowercase().starts_with(&format!("{name}: ")))?;
        Some(line[name.len() + 2..].to_owned())
    };
    let mut body = vec![0; field("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let token = field("authorization").map(|t| t.trim_start_matches("Bearer ").to_owned());
    let request = Request { line, token, body: serde_json::from_slice(&body).unwrap_or_default() };
    noted.lock().unwrap().push(request.clone());
    let (status, kind, body) = match answer(&request) {
        Answer::Json(status, body) => (status, "application/json", body.to_string()),
        Answer::Html(status) => (status, "text/html", "<html><body>One moment, please</body></html>".to_owned()),
        Answer::Nothing => {
            std::thread::sleep(Duration::from_secs(120));
            return;
        }
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nDate: {DATE}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// As an API server says no.
pub fn status(code: u16, reason: &str) -> Answer {
    let body = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code});
    Answer::Json(code, body)
}

/// An API server's answer about a lease that nobody has; `None` if it is about something else.
pub fn lease(request: &Request) -> Option<Answer> {
    request.line.contains("/leases").then(|| match request.line.starts_with("GET") {
        true => status(404, "NotFound"),
        false => Answer::Json(200, request.body.clone()),
    })
}

/// Leads, or tries to, until the sender goes.
pub async fn lead(client: kube::Client, seconds: u64) -> (Leadership, watch::Sender<bool>) {
    let (leadership, (release, released)) = (Leadership::default(), watch::channel(false));
    let candidate = Candidate {
        namespace: "x".to_owned(),
        name: "berth-operator".to_owned(),
        identity: "me".to_owned(),
        duration: Duration::from_secs(seconds),
    };
    tokio::spawn(lease::hold(client, candidate, leadership.clone(), released));
    (leadership, release)
}

pub async fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
