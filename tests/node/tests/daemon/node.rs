//! One daemon and what belongs to it: its directory, its registry, its log, and the count of leftovers at its end.
use super::client::Cri;
use super::{images, wreck};
use berth_leaks::{Scope, Snapshot};
use berth_node_tests::programs;
use berth_proto::node as node_api;
use berth_test_registry::Registry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How long the kernel gets to take apart what was removed.
const SETTLE: Duration = Duration::from_secs(10);

/// What a test wants otherwise than usual.
#[derive(Default)]
pub struct Setup {
    /// The node's document; without one, it has the built-in network.
    pub document: Option<String>,
    /// Path of the network namespace that the daemon lives in.
    pub netns: Option<PathBuf>,
}

/// A daemon under test.
pub struct Node {
    base: tempfile::TempDir,
    registry: Registry,
    child: Option<Child>,
    cri: Option<Cri>,
    /// `berth-<hash>`: the name that it gives to what is not in its directory.
    name: String,
    metrics: String,
    hold: Option<String>,
    env: Vec<(String, String)>,
    netns: Option<PathBuf>,
    /// Whether pods are on the built-in network.
    builtin: bool,
    /// File systems of the test's own below the directory; they go with the daemon.
    mounts: Vec<PathBuf>,
    /// Where the programs of the next start lie.
    programs: PathBuf,
    scope: Scope,
    before: Snapshot,
}

/// Where roots lie: on a file system that can be the upper of an overlay. The guest says so by `TMPDIR`.
fn state_dir() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// Subnets of the daemons of this process, so that two of them never overlap by chance.
fn subnet() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    format!("10.{}.{}.0/24", 96 + (number >> 8) % 24, number % 256)
}

impl Node {
    /// A daemon with the built-in network, ready, with `tools:v1` and `web:v1` in its registry and nothing pulled.
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// The same as a test wants it.
    pub async fn with(setup: Setup) -> Self {
        Self::made(setup, |_| Vec::new()).await
    }

    /// The usual one; `mount` may mount file systems below the root before the daemon starts, and says where.
    pub async fn on(mount: impl FnOnce(&Path) -> Vec<PathBuf>) -> Self {
        Self::made(Setup::default(), mount).await
    }

    async fn made(setup: Setup, mount: impl FnOnce(&Path) -> Vec<PathBuf>) -> Self {
        let before = Snapshot::take(&Scope::default()).unwrap();
        let base = tempfile::Builder::new().prefix("berth-e2e-").tempdir_in(state_dir()).unwrap();
        let registry = images::registry().await;
        let scope = Scope { roots: Vec::new(), words: vec![base.path().to_string_lossy().into_owned()] };
        let mut node = Self {
            base,
            registry,
            child: None,
            cri: None,
            name: String::new(),
            metrics: String::new(),
            hold: None,
            env: Vec::new(),
            netns: setup.netns,
            builtin: setup.document.is_none(),
            mounts: Vec::new(),
            programs: programs(),
            scope,
            before,
        };
        std::fs::create_dir_all(node.root().join("etc")).unwrap();
        node.name = format!("berth-{:08x}", fnv1a(node.root().canonicalize().unwrap().as_os_str().as_encoded_bytes()));
        node.mounts = mount(&node.root());
        node.document("50-node.yaml", &setup.document.unwrap_or_else(|| node_document(&subnet())));
        node.start().await;
        node
    }

    /// The same with `tools:v1` pulled.
    pub async fn with_tools() -> Self {
        let node = Self::new().await;
        node.cri().pull(&node.tools()).await;
        node
    }

    /// Parent of everything: `root`, `log`, `logs/POD`.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    pub fn root(&self) -> PathBuf {
        self.base.path().join("root")
    }

    pub fn socket(&self) -> PathBuf {
        self.root().join("run/berth.sock")
    }

    /// `berth-<hash>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn tools(&self) -> String {
        self.registry.reference("tools:v1")
    }

    pub fn web(&self) -> String {
        self.registry.reference("web:v1")
    }

    pub fn cri(&self) -> Cri {
        self.cri.clone().expect("the daemon runs")
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("the daemon runs").id()).unwrap()
    }

    /// Writes a document, whole from one moment to the next.
    pub fn document(&self, file: &str, text: &str) {
        let etc = self.root().join("etc");
        std::fs::write(self.base().join("document"), text).unwrap();
        std::fs::rename(self.base().join("document"), etc.join(file)).unwrap();
    }

    pub fn remove_document(&self, file: &str) {
        std::fs::remove_file(self.root().join("etc").join(file)).unwrap();
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.spawn(&[]);
        self.answers().await;
    }

    /// Starts a second daemon that takes over from the first; how the first ended.
    pub async fn take_over(&mut self) -> ExitStatus {
        self.cri = None;
        let former = self.child.take().expect("the daemon runs");
        self.spawn(&["--replace"]);
        let ended = super::ended(former, STOP_LIMIT).await.unwrap_or_else(|| panic!("it runs on: {}", self.log_tail()));
        self.answers().await;
        ended
    }

    fn spawn(&mut self, options: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let berth = self.programs.join("berth");
        let mut command = match &self.netns {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg("--").arg(berth);
                command
            }
            None => Command::new(berth),
        };
        command.arg("serve").arg("--root").arg(self.root()).args(options);
        command.env_remove("NOTIFY_SOCKET").env_remove("BERTH_HOLD");
        command.env("BERTH_LOG", "debug").envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(hold) = &self.hold {
            command.env("BERTH_HOLD", hold);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    async fn answers(&mut self) {
        let end = Instant::now() + START_LIMIT;
        loop {
            // A process that the former daemon was about to execute may hold its socket for a moment more.
            if let Ok(cri) = Cri::connect(&self.socket()).await
                && cri.version().await.is_ok()
            {
                self.cri = Some(cri);
                break;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "berth serve ended with {ended:?}: {}", self.log_tail());
            assert!(Instant::now() < end, "berth serve does not answer: {}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let info = self.info().await;
        self.metrics = info.metrics_address;
        if self.builtin {
            assert_eq!(info.bridge, self.name.replace('-', ""), "the bridge carries the root's hash");
        }
        let hash = self.name.trim_start_matches("berth-").to_owned();
        self.scope.words.truncate(1);
        self.scope.words.push(hash);
    }

    /// What `berth info` asks for.
    pub async fn info(&self) -> node_api::InfoResponse {
        let socket = format!("unix://{}", self.root().join("run/node.sock").display());
        let endpoint = tonic::transport::Endpoint::from_shared(socket).unwrap();
        super::eventually("node.sock answers", async || {
            let mut client = node_api::node_client::NodeClient::new(endpoint.connect().await.ok()?);
            client.info(node_api::InfoRequest {}).await.ok()
        })
        .await
        .into_inner()
    }

    /// From the next start on, the daemon has this in its environment.
    pub fn env(&mut self, name: &str, value: String) {
        self.env.push((name.to_owned(), value));
    }

    /// From the next start on, the daemon is the one of this directory.
    pub fn use_programs(&mut self, directory: PathBuf) {
        self.programs = directory;
    }

    /// From the next start on, the daemon waits at `operation/step/edge` whenever [`Node::arm`] was called.
    pub fn hold_at(&mut self, place: &str) {
        self.hold = Some(format!("{place}={}", self.hold_file().display()));
    }

    fn hold_file(&self) -> PathBuf {
        self.base().join("hold")
    }

    fn reached_file(&self) -> PathBuf {
        self.base().join("hold.reached")
    }

    /// The next walk through the place waits there.
    pub fn arm(&self) {
        let _ = std::fs::remove_file(self.reached_file());
        std::fs::write(self.hold_file(), "").unwrap();
    }

    /// Whether somebody waits at the place.
    pub fn is_held(&self) -> bool {
        self.reached_file().exists()
    }

    /// Waits until somebody waits at the place.
    pub async fn held(&self) {
        let what = format!("the place {:?} is reached; {}", self.hold, self.log_tail());
        super::eventually(&what, async || self.is_held().then_some(())).await;
    }

    /// Nobody waits any more.
    pub fn release(&self) {
        let _ = std::fs::remove_file(self.hold_file());
        let _ = std::fs::remove_file(self.reached_file());
    }

    /// SIGKILL, as from the OOM killer.
    pub fn kill(&mut self) {
        self.cri = None;
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "the daemon ended before it was killed: {}", self.log_tail());
        self.release();
    }

    /// SIGTERM, and the end that follows.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.cri = None;
        let child = self.child.take().expect("the daemon runs");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let ended = super::ended(child, STOP_LIMIT).await;
        ended.unwrap_or_else(|| panic!("berth serve did not end after SIGTERM: {}", self.log_tail()))
    }

    /// SIGKILL and a new start.
    pub async fn kill_and_start(&mut self) {
        self.kill();
        self.start().await;
    }

    pub fn log(&self) -> PathBuf {
        self.base().join("log")
    }

    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // The HTTP/2 library tells of every frame.
        let lines: Vec<&str> = text.lines().filter(|l| !l.contains("h2::")).collect();
        format!("the daemon's log:\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"))
    }

    /// The figures: value by series.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let mut stream = std::net::TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let lines = body.lines().filter(|l| !l.starts_with('#'));
        lines
            .filter_map(|l| l.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// One figure; a series that does not exist is an error of the test.
    pub fn figure(&self, series: &str) -> f64 {
        let all = self.figures();
        *all.get(series).unwrap_or_else(|| panic!("no series {series} in {:#?}", all.keys()))
    }

    /// Asserts that directories of pods and of root file systems are those of these pods and containers.
    #[track_caller]
    pub fn nothing_but(&self, pods: &[&str], containers: &[&str]) {
        let strays = |dir: &str, known: &[&str]| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.root().join(dir)).into_iter().flatten().flatten();
            let stray = |name: &str| !known.iter().any(|id| name.starts_with(id));
            entries.filter(|e| stray(&e.file_name().to_string_lossy())).map(|e| e.path()).collect()
        };
        let left = [
            strays("run/pods", pods),
            strays("lib/pods", pods),
            strays("lib/images/rootfs", containers),
            strays("lib/images/ingest", &[]),
        ];
        assert!(left.iter().all(Vec::is_empty), "left on disk: {left:#?}");
    }

    /// Removes all pods and counts what they left, while the daemon runs on.
    pub async fn remove_pods(&self) {
        let cri = self.cri();
        for pod in cri.pods().await {
            cri.try_remove_pod(&pod.id).await.unwrap_or_else(|e| panic!("removing {}: {e}", pod.id));
        }
        assert_eq!(cri.containers().await, [], "containers without pods");
        self.nothing_but(&[], &[]);
        // The bridge of a network namespace of the test's own goes with it.
        if !self.builtin || self.netns.is_some() {
            return;
        }
        let bridge = self.name.replace('-', "");
        // A link goes when the kernel has taken its network namespace apart, in its own time.
        super::eventually("the pods' links are gone", async || {
            super::host("ip", &["-o", "link", "show", "master", &bridge]).is_empty().then_some(())
        })
        .await;
    }

    /// The end of every test: pods are removed, the daemon is ended, and nothing may be left over.
    pub async fn finish(mut self) {
        self.remove_pods().await;
        let status = self.terminate().await;
        assert!(status.success(), "berth serve ended with {status:?}: {}", self.log_tail());
        for mount in std::mem::take(&mut self.mounts) {
            nix::mount::umount(&mount).unwrap();
        }
        let leaks = berth_leaks::settle(&self.scope, &self.before, SETTLE).unwrap();
        // What the test itself holds open names its directory.
        assert!(leaks.is_empty(), "left over:\n{}", leaks.iter().map(|l| format!("  {l}\n")).collect::<String>());
        std::fs::remove_dir_all(self.root()).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.child.is_none(), "a test ends with Node::finish");
            return;
        }
        eprintln!("{}", self.log_tail());
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        wreck::clear(self.base.path(), &self.name);
        for mount in std::mem::take(&mut self.mounts) {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// The hash that names of a root's things are made of (FNV-1a, 32 bits).
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

fn node_document(subnet: &str) -> String {
    format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata:\n  name: node\nspec:\n  runtime:\n    pidsLimit: 200\n  \
         network:\n    mode: Builtin\n    subnet: {subnet}\n"
    )
}
