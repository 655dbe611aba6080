//! An API server, or something before it, that answers badly: the agent's own client and loop against a server that misbehaves on purpose. The
//! node keeps what it has, the agent asks ever more seldom, says what it got, and goes on when it is answered. And one that says nothing any more.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

use berth_agent::clock::Clock;
use berth_agent::cluster::ClusterSide;
use berth_agent::credential::Credential;
use berth_agent::facts::{AdoptPhase, Adoption, Daemon, Facts};
use berth_agent::kubernetes::Kubernetes;
use berth_agent::node::{NodeSide, Permit, Policies, Trouble};
use berth_agent::observe::Metrics;
use berth_agent::plan::Wanted;
use berth_agent::run::Agent;
use berth_agent::store::Store;
use berth_crds::{Disruption, RuntimeNode, RuntimeNodeSpec, RuntimeRevision, RuntimeRevisionSpec};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Long, for machines that are busy.
const LIMIT: Duration = Duration::from_secs(90);
const PAGE: &str = "<html><head><title>One moment</title></head><body>please, or 1234567 others</body></html>";

#[derive(Debug, Clone, Copy)]
enum Bad {
    Status(u16),
    Html(u16),
    Silence,
}

const ALL: [Bad; 7] =
    [Bad::Status(429), Bad::Status(500), Bad::Html(200), Bad::Html(429), Bad::Html(500), Bad::Html(503), Bad::Silence];

/// What is answered badly: everything, then only what is not the watch, then nothing.
const EVERYTHING: usize = 0;
const SINGLE_REQUESTS: usize = 1;
const NOTHING: usize = 2;

/// Serves one RuntimeNode, which wants one revision.
struct Server {
    address: String,
    bad: Bad,
    badly: AtomicUsize,
    /// What the node wants at first, and what it wants once there is news.
    revisions: [(String, RuntimeRevisionSpec); 2],
    /// A watch that was begun before there was news stays as it is: open, and silent.
    news: AtomicBool,
    /// Lines of requests, with when they came.
    asked: Mutex<Vec<(String, Instant)>>,
    statuses: Mutex<Vec<Value>>,
}

impl Server {
    fn start(bad: Bad) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let revisions = [50, 60].map(|limit| {
            let config = serde_json::from_value(json!({"runtime": {"pidsLimit": limit}})).unwrap();
            let content = RuntimeRevisionSpec::of_runtime("0.1.0", &config);
            (content.name(), content)
        });
        let server = Arc::new(Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            bad,
            badly: AtomicUsize::new(EVERYTHING),
            revisions,
            news: AtomicBool::new(false),
            asked: Mutex::default(),
            statuses: Mutex::default(),
        });
        let serving = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&serving);
                std::thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        server
    }

    fn asked(&self, what: &str) -> Vec<Instant> {
        self.asked.lock().unwrap().iter().filter(|(line, _)| line.contains(what)).map(|(_, at)| *at).collect()
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some((line, body)) = request(&mut stream) else { return };
        self.asked.lock().unwrap().push((line.clone(), Instant::now()));
        let of_the_watch = line.contains("fieldSelector=");
        let badly = match self.badly.load(Ordering::SeqCst) {
            EVERYTHING => true,
            SINGLE_REQUESTS => !of_the_watch,
            _ => false,
        };
        if badly {
            return answer_badly(&mut stream, self.bad);
        }
        let news = self.news.load(Ordering::SeqCst);
        let spec = RuntimeNodeSpec {
            desired_revision: Some(self.revisions[usize::from(news)].0.clone()),
            node_uid: "1".to_owned(),
            ..Default::default()
        };
        let mut node = json!(RuntimeNode::new("n", spec));
        node["metadata"]["uid"] = json!("u");
        let version = if news { "6" } else { "5" };
        node["metadata"]["resourceVersion"] = json!(version);
        if line.contains("watch=true") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n");
            if news && line.contains("resourceversion=5") {
                let _ = stream.write_all(format!("{}\n", json!({"type": "MODIFIED", "object": node})).as_bytes());
            }
            std::thread::sleep(LIMIT);
        } else if of_the_watch {
            let list = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNodeList", "metadata": {"resourceVersion": version}, "items": [node]});
            write(&mut stream, 200, "application/json", &list.to_string());
        } else if line.contains("/runtimerevisions/") {
            let (name, content) = self.revisions.iter().find(|(name, _)| line.contains(name)).unwrap();
            let object = json!(RuntimeRevision::new(name, content.clone()));
            write(&mut stream, 200, "application/json", &object.to_string());
        } else {
            self.statuses.lock().unwrap().push(body["status"].clone());
            write(&mut stream, 200, "application/json", &node.to_string());
        }
    }
}

fn request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    // Names of kinds and parameters have no upper case but in this one.
    let line = head.lines().next().unwrap_or_default().replace("fieldselector", "fieldSelector");
    Some((line, serde_json::from_slice(&body).unwrap_or_default()))
}

fn answer_badly(stream: &mut TcpStream, bad: Bad) {
    match bad {
        Bad::Status(code) => {
            let body = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "busy", "reason": "Busy",
                "code": code});
            write(stream, code, "application/json", &body.to_string());
        }
        Bad::Html(code) => write(stream, code, "text/html", PAGE),
        Bad::Silence => std::thread::sleep(LIMIT),
    }
}

fn write(stream: &mut TcpStream, code: u16, kind: &str, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// A node on Berth: what it has, and whether anything was done to it.
#[derive(Clone, Default)]
struct Node(Arc<Mutex<(Option<String>, Vec<String>)>>);

impl Node {
    fn does(&self, what: &str) -> Result<(), Trouble> {
        self.0.lock().unwrap().1.push(what.to_owned());
        Ok(())
    }

    fn done(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}

impl NodeSide for Node {
    async fn look(&self) -> Facts {
        let configuration = self.0.lock().unwrap().0.clone();
        Facts {
            boot_id: "b".to_owned(),
            adoption: Adoption { phase: AdoptPhase::Adopted, ..Adoption::default() },
            daemon: Some(Daemon { version: "0.1.0".to_owned(), pid: 7, configuration, ..Daemon::default() }),
            kubelet: Some(5),
            ..Facts::default()
        }
    }

    async fn check(
        &self,
        _revision: &str,
        _wanted: &Wanted,
        _foreign: bool,
        _policies: Option<Policies<'_>>,
    ) -> Result<Disruption, Trouble> {
        Ok(Disruption::Live)
    }

    async fn apply(&self, revision: &str, _json: &str) -> Result<(), Trouble> {
        self.0.lock().unwrap().0 = Some(revision.to_owned());
        self.does("apply")
    }

    async fn hand_over(&self, _credentials: Vec<Credential>) -> Result<(), Trouble> {
        self.does("hand over")
    }

    async fn restart(&self, _version: &str) -> Result<(), Trouble> {
        self.does("restart")
    }

    async fn adopt(
        &self,
        _revision: &str,
        _wanted: &Wanted,
        _policies: Option<Policies<'_>>,
        _permit: Permit<'_>,
    ) -> Result<(), Trouble> {
        self.does("adopt")
    }

    async fn give_back(&self, _permit: Permit<'_>) -> Result<(), Trouble> {
        self.does("give back")
    }

    async fn configure_kubelet(
        &self,
        _wanted: &Wanted,
        _restart: bool,
        _permit: Option<Permit<'_>>,
    ) -> Result<(), Trouble> {
        self.does("configure the kubelet")
    }

    async fn release(&self) -> Result<(), Trouble> {
        self.does("release")
    }

    async fn supervise(&self) -> Result<(), Trouble> {
        self.does("supervise")
    }

    async fn recover(&self) -> Result<(), Trouble> {
        self.does("recover")
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// No two requests for the same follow sooner than the pauses grow, from a second on.
fn ever_more_seldom(of: &[Instant], bad: Bad) {
    let pauses: Vec<_> = of.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect();
    let floors = [700, 1400, 2800].map(Duration::from_millis);
    assert!(pauses.iter().zip(floors).all(|(pause, floor)| *pause >= floor), "{bad:?}: {pauses:?}");
}

async fn lives_through(bad: Bad) {
    let (server, node, clock) = (Server::start(bad), Node::default(), Clock::default());
    let (metrics, dir) = (Metrics::new("0").unwrap(), tempfile::tempdir().unwrap());
    node.0.lock().unwrap().0 = Some("config-old".to_owned());
    if matches!(bad, Bad::Silence) {
        server.badly.store(SINGLE_REQUESTS, Ordering::SeqCst);
    }
    let kubernetes = Kubernetes::plain(&server.address, &clock).unwrap().limited(Duration::from_millis(500));
    let seen = kubernetes.watch("n", &metrics);
    let (stop, stopped) = watch::channel(false);
    let agent = Agent::new(node.clone(), kubernetes, Store::open(dir.path()).unwrap(), clock, metrics);
    let working = tokio::spawn(agent.run(seen, stopped));
    let fine =
        |what: &str| assert!(node.done().is_empty() && !working.is_finished(), "{bad:?}, {what}: {:?}", node.done());
    // A watch that is silent is waited for, because it is silent when all is well, and given up after more than a minute.
    if !matches!(bad, Bad::Silence) {
        until("lists were asked for", || server.asked("fieldSelector").len() >= 3).await;
        fine("nothing is known");
    }
    server.badly.store(SINGLE_REQUESTS, Ordering::SeqCst);
    until("the revision and the status were asked for again", || {
        server.asked("get /apis/berth.dev/v1alpha1/runtimerevisions/").len() >= 4 && server.asked("patch").len() >= 3
    })
    .await;
    fine("the revision cannot be had");
    ever_more_seldom(&server.asked("get /apis/berth.dev/v1alpha1/runtimerevisions/"), bad);
    ever_more_seldom(&server.asked("patch"), bad);
    server.badly.store(NOTHING, Ordering::SeqCst);
    let has = |status: &Value| status["currentRevision"] == server.revisions[0].0.as_str() && status["phase"] == "Idle";
    until("it goes on", || server.statuses.lock().unwrap().iter().any(has)).await;
    assert_eq!(node.done(), ["apply"], "{bad:?}");
    stop.send(true).unwrap();
    working.await.unwrap();
}

#[tokio::test]
async fn whatever_is_answered_the_node_keeps_what_it_has_and_goes_on_when_it_is_answered_well() {
    let all: Vec<_> = ALL.into_iter().map(|bad| tokio::spawn(lives_through(bad))).collect();
    for one in all {
        one.await.unwrap();
    }
}

/// The API server, or a way to it, is stuck: a watch stays open, and neither events nor bookmarks come.
#[tokio::test]
async fn a_watch_that_is_silent_is_given_up_and_what_changed_meanwhile_arrives() {
    let (server, node, clock) = (Server::start(Bad::Silence), Node::default(), Clock::default());
    let (metrics, dir) = (Metrics::new("0").unwrap(), tempfile::tempdir().unwrap());
    server.badly.store(NOTHING, Ordering::SeqCst);
    let config = kube::Config::new(server.address.parse().unwrap());
    let kubernetes = Kubernetes::connect(config, &clock, Some(Duration::from_secs(2))).unwrap();
    let seen = kubernetes.watch("n", &metrics);
    let (stop, stopped) = watch::channel(false);
    let agent = Agent::new(node.clone(), kubernetes, Store::open(dir.path()).unwrap(), clock, metrics);
    let working = tokio::spawn(agent.run(seen, stopped));
    let has = |at: usize| node.0.lock().unwrap().0.as_ref() == Some(&server.revisions[at].0);
    until("it has what it is to have, and watches", || has(0) && !server.asked("watch=true").is_empty()).await;
    // Asked to end by itself before the client gives it up.
    assert_eq!(server.asked("watch=true").len(), server.asked("timeoutseconds=60").len());
    server.news.store(true, Ordering::SeqCst);
    let began = Instant::now();
    until("it has the news", || has(1)).await;
    // The watcher's own clock would end it a minute after it was begun.
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    assert_eq!(node.done(), ["apply", "apply"]);
    stop.send(true).unwrap();
    working.await.unwrap();
}

#[tokio::test]
async fn what_came_is_said_and_a_page_is_not_shown() {
    for bad in ALL {
        let server = Server::start(bad);
        let kubernetes =
            Kubernetes::plain(&server.address, &Clock::default()).unwrap().limited(Duration::from_millis(500));
        let status = Default::default();
        for why in
            [kubernetes.revision("config-1").await.unwrap_err(), kubernetes.report("n", &status).await.unwrap_err()]
        {
            let word = match bad {
                Bad::Status(code) | Bad::Html(code) if code != 200 => code.to_string(),
                Bad::Silence => "does not answer within".to_owned(),
                _ => "expected value".to_owned(),
            };
            assert!(why.contains(&word) && !why.contains('<') && why.len() < 400, "{bad:?}: {why}");
            assert!(!matches!(bad, Bad::Html(code) if code != 200) || why.contains("a page of HTML"), "{why}");
        }
        assert_eq!(server.asked("/").len(), 2, "{bad:?}: none is asked again behind the loop's back");
    }
}
