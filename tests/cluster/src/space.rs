//! A node's own network and mount namespaces, control group and directory, seen from the test. Owns: their life, and the count of what is
//! left over. Must not: know what runs in them.
use crate::service::tail;
use crate::{cgroups, enter, sysctls};
use berth_leaks::{Scope, Snapshot};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The node's address in its own network namespace.
pub const NODE_ADDRESS: &str = "172.31.77.10";
const GATEWAY: &str = "172.31.77.1";
/// How long the kernel gets to take apart what was removed.
const SETTLE: Duration = Duration::from_secs(20);
/// How long a connection may take: everything is on this machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Lines of each log that are shown when a case failed.
const TAIL: usize = 40;

/// One node's namespaces.
pub struct NodeSpace {
    base: PathBuf,
    group: String,
    holder: Child,
    stdin: Option<ChildStdin>,
    scope: Mutex<Scope>,
    before: Snapshot,
    logs: Mutex<Vec<(String, PathBuf)>>,
    _sysctls: sysctls::Guard,
}

impl NodeSpace {
    /// A new node, empty.
    ///
    /// # Panics
    /// Without root, or where namespaces cannot be made.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let sysctls = sysctls::Guard::new().expect("the machine's settings can be noted");
        let before = Snapshot::take(&Scope::default()).expect("what is there before is counted");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = format!("berth-cl-{:x}n{count}", std::process::id());
        let base = PathBuf::from("/var/tmp").join(&group);
        for dir in ["logs", "manifests", "spool"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .arg(enter::HOLD)
            .arg(&base)
            .args([&group, NODE_ADDRESS, GATEWAY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs itself");
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line);
        assert_eq!(line.trim(), "ready", "the node's namespaces could not be made (see above); this needs root");
        let stdin = holder.stdin.take();
        let scope = Scope { roots: vec![base.clone()], words: vec![group.clone()] };
        Self { base, group, holder, stdin, scope: Mutex::new(scope), before, logs: Mutex::default(), _sysctls: sysctls }
    }

    /// The node's directory: the same path inside and outside.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The node's control group, `/`-less.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Process id of the holder: `/proc/PID/root` is the node's view of files.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Directory of pods' logs, seen from outside.
    pub fn pod_logs(&self) -> PathBuf {
        self.base.join("var-log/pods")
    }

    /// Tells that the control group `name` at the top of the hierarchies, made by a program of the node, belongs to it.
    pub fn owns_group(&self, name: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{name}").expect("the holder lives");
        self.scope.lock().unwrap().words.push(name.to_owned());
    }

    /// Whether the process lives in a control group of the node's, or in its mount namespace.
    pub fn owns_process(&self, process: &Path) -> bool {
        let mounts = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
        let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let ours = self.scope.lock().unwrap().words.iter().any(|word| groups.contains(word.as_str()));
        ours || mounts(process) == mounts(&PathBuf::from(format!("/proc/{}", self.holder())))
    }

    /// A command that runs inside, in the group `part` of the node's (made if missing).
    pub fn command(&self, part: &str, program: impl AsRef<Path>) -> Command {
        let group = format!("{}/{part}", self.group);
        cgroups::create(&group).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([enter::ENTER, &self.holder().to_string(), &group]).arg(program.as_ref());
        command
    }

    /// A connection that begins inside.
    pub fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder()))?;
        // A network namespace is a thread's; a socket keeps the one that it was made in.
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect_timeout(&address, CONNECT_LIMIT)
        });
        thread.join().unwrap()
    }

    /// Moves the calling thread into the node's network: sockets that it opens from then on are the node's.
    pub fn enter_network(&self) -> io::Result<()> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// A log that is shown when a case fails.
    pub fn watch_log(&self, name: &str, path: PathBuf) {
        self.logs.lock().unwrap().push((name.to_owned(), path));
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        let logs = self.logs.lock().unwrap();
        logs.iter().map(|(name, path)| format!("--- end of {name}'s log\n{}\n", tail(path, TAIL))).collect()
    }

    /// Ends everything of the node.
    ///
    /// # Panics
    /// Where something is left over, with a list of it.
    pub fn finish(mut self) {
        let ended = self.end();
        assert!(ended.as_ref().is_ok_and(|status| status.success()), "the node's end: {ended:?}");
        let scope = self.scope.lock().unwrap().clone();
        let leaks = berth_leaks::settle(&scope, &self.before, SETTLE).unwrap();
        assert!(leaks.is_empty(), "left over:\n{}", leaks.iter().map(|l| format!("  {l}\n")).collect::<String>());
    }

    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        // The node's directory goes with it. Whoever looks for the cause of something sets this.
        if let Some(dir) = std::env::var_os("BERTH_CLUSTER_LOGS")
            && self.stdin.is_some()
        {
            let _ = Command::new("cp").arg("-r").arg(self.base.join("logs")).arg(dir).status();
        }
        self.stdin = None;
        self.holder.wait()
    }
}

impl Default for NodeSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NodeSpace {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
