//! A node to test the network on: network namespaces made by the test, so that the machine's own is never touched, and
//! what is seen from inside them with tools that share nothing with the product (`ip`, `nft`, plain sockets).
//!
//! A namespace lives as long as its file is open: nothing is mounted, nothing stays.
#![allow(dead_code, reason = "each test binary uses its part")]

use berth_model::{PodId, PortMapping, Protocol, Result};
use berth_network::{Attachment, Bridge, BridgeConfig, Leases, PodNetwork};
use nix::sched::{CloneFlags, setns, unshare};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace.
pub struct Netns(pub Arc<File>);

impl Netns {
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
            // A new namespace takes its values over from the machine, where a daemon may forward.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self(Arc::new(std::thread::spawn(make).join().unwrap()))
    }

    /// A path of the namespace for as long as it lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs something inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|s| {
            let enter = || {
                setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            s.spawn(enter).join().unwrap()
        })
    }

    /// Runs a command line inside; it must succeed. Returns its output.
    pub fn sh(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.command(&words)
    }

    fn command(&self, words: &[&str]) -> String {
        let output = self.run(|| Command::new(words[0]).args(&words[1..]).output().unwrap());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Names of all interfaces, sorted.
    pub fn links(&self) -> Vec<String> {
        let text = self.sh("ip -o link show");
        let name = |l: &str| l.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned();
        let mut names: Vec<_> = text.lines().map(name).collect();
        names.sort();
        names
    }

    pub fn ruleset(&self) -> String {
        self.sh("nft list ruleset")
    }

    pub fn nft(&self, line: &str) {
        self.command(&["nft", line]);
    }

    pub fn sysctl(&self, name: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap().trim().to_owned())
    }

    pub fn set_sysctl(&self, name: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value).unwrap());
    }

    /// Connects from inside; the server says whom it sees.
    pub fn dial(&self, to: &str) -> std::io::Result<IpAddr> {
        self.dial_within(to, PATIENCE)
    }

    pub fn dial_within(&self, to: &str, patience: Duration) -> std::io::Result<IpAddr> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            text.parse().map_err(std::io::Error::other)
        })
    }

    /// The same over UDP. `from` is the local port, 0 for any.
    pub fn dial_udp(&self, to: &str, from: u16, patience: Duration) -> std::io::Result<IpAddr> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(|| {
            let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
            let socket = UdpSocket::bind((any, from))?;
            socket.set_read_timeout(Some(patience))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let n = socket.recv(&mut buffer)?;
            String::from_utf8_lossy(&buffer[..n]).parse().map_err(std::io::Error::other)
        })
    }

    /// Answers TCP and UDP at a port inside, each time with the address of who asks.
    pub fn serve(&self, at: &str) -> Server {
        let at: SocketAddr = at.parse().unwrap();
        let (tcp, udp) = self.run(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()));
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let answer = move || {
            let mut buffer = [0; 16];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((mut stream, peer)) = tcp.accept() {
                    let _ = stream.write_all(peer.ip().to_canonical().to_string().as_bytes());
                }
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        Server { stop, thread: Some(std::thread::spawn(answer)) }
    }
}

/// Ends with its value.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Leases in memory, which can be told to fail.
#[derive(Default)]
pub struct MemoryLeases {
    pub map: Mutex<BTreeMap<String, Vec<u8>>>,
    pub broken: AtomicBool,
}

impl Leases for MemoryLeases {
    fn all(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(self.map.lock().unwrap().clone().into_iter().collect())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(berth_model::Error::internal("the disk is gone"));
        }
        self.map.lock().unwrap().insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.map.lock().unwrap().remove(key);
        Ok(())
    }
}

/// A node: its namespace, and one outside of it that it reaches by its default route.
///
/// `world` (192.0.2.1, 2001:db8::1) --- up0 (192.0.2.2, 2001:db8::2) `netns`. The world has no route to pods.
pub struct Node {
    pub netns: Netns,
    pub world: Netns,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    pub fn new() -> Self {
        let (netns, world) = (Netns::new(), Netns::new());
        let inside = Arc::clone(&netns.0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || setns(&*inside, CloneFlags::CLONE_NEWNET).unwrap())
            .build()
            .unwrap();
        netns.sh("ip link set lo up");
        let (near, far) = ("02:00:00:00:00:02", "02:00:00:00:00:01");
        let peer = format!("type veth peer name w0 address {far} netns {}", world.path().display());
        netns.sh(&format!("ip link add up0 address {near} {peer}"));
        netns.sh("ip addr add 192.0.2.2/24 dev up0");
        netns.sh("ip link set up0 up");
        world.sh("ip addr add 192.0.2.1/24 dev w0");
        world.sh("ip link set w0 up");
        netns.sh("ip route add default via 192.0.2.1");
        netns.sh("ip addr add 2001:db8::2/64 dev up0 nodad");
        world.sh("ip addr add 2001:db8::1/64 dev w0 nodad");
        netns.sh("ip -6 route add default via 2001:db8::1");
        // A new address is answered for when the kernel gets to it; that is not what is tested.
        netns.sh(&format!("ip neigh replace 2001:db8::1 lladdr {far} dev up0"));
        world.sh(&format!("ip neigh replace 2001:db8::2 lladdr {near} dev w0"));
        Self { netns, world, runtime }
    }

    /// Runs the product's code on the node.
    pub fn block_on<F>(&self, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.runtime.spawn(work);
        self.runtime.block_on(task).unwrap()
    }

    pub fn open(&self, config: BridgeConfig, leases: Arc<MemoryLeases>) -> Result<Bridge> {
        self.block_on(Bridge::open(config, leases))
    }

    /// An open bridge that is set up.
    pub fn bridge(&self, config: BridgeConfig) -> (Bridge, Arc<MemoryLeases>) {
        let leases = Arc::new(MemoryLeases::default());
        let bridge = self.open(config, Arc::clone(&leases)).unwrap();
        self.ensure(&bridge);
        (bridge, leases)
    }

    pub fn ensure(&self, bridge: &Bridge) {
        let bridge = bridge.clone();
        self.block_on(async move { bridge.ensure().await }).unwrap();
    }

    pub fn ready(&self, bridge: &Bridge) -> Result<(), String> {
        let bridge = bridge.clone();
        self.block_on(async move { bridge.ready().await })
    }

    pub fn destroy(&self, bridge: &Bridge) {
        let bridge = bridge.clone();
        self.block_on(async move { bridge.destroy().await }).unwrap();
    }

    pub fn reconcile(&self, bridge: &Bridge, live: &[&Pod]) -> berth_network::Reconciled {
        let (bridge, live) = (bridge.clone(), live.iter().map(|p| p.id.clone()).collect::<Vec<_>>());
        self.block_on(async move { bridge.reconcile(&live).await }).unwrap()
    }

    pub fn detach(&self, bridge: &Bridge, pod: &Pod) {
        let (bridge, id, attachment) = (bridge.clone(), pod.id.clone(), pod.attachment.clone());
        self.block_on(async move { bridge.detach(&id, Some(&attachment)).await }).unwrap();
    }

    pub fn try_attach(&self, bridge: &Bridge, id: &PodId, netns: PathBuf, ports: &[PortMapping]) -> Result<Attachment> {
        self.try_attach_as(bridge, id, netns, PodNetwork { ports: ports.to_vec(), ..PodNetwork::default() })
    }

    pub fn try_attach_as(&self, bridge: &Bridge, id: &PodId, netns: PathBuf, wish: PodNetwork) -> Result<Attachment> {
        let (bridge, id) = (bridge.clone(), id.clone());
        self.block_on(async move { bridge.attach(&id, &netns, &wish).await })
    }

    /// Looks after the network once; returns what was repaired.
    pub fn maintain(&self, bridge: &Bridge) -> Option<String> {
        let bridge = bridge.clone();
        self.block_on(async move { bridge.maintain().await }).unwrap()
    }

    /// A pod with its network.
    pub fn pod(&self, bridge: &Bridge, ports: &[PortMapping]) -> Pod {
        self.pod_as(bridge, PodNetwork { ports: ports.to_vec(), ..PodNetwork::default() })
    }

    pub fn pod_as(&self, bridge: &Bridge, wish: PodNetwork) -> Pod {
        let (id, netns) = (new_id(), Netns::new());
        let attachment = self.try_attach_as(bridge, &id, netns.path(), wish).unwrap();
        let ip = attachment.addresses[0].addr().to_string();
        Pod { id, netns, attachment, ip }
    }
}

/// A pod: a network namespace of its own.
pub struct Pod {
    pub id: PodId,
    pub netns: Netns,
    pub attachment: Attachment,
    pub ip: String,
}

/// An id that no other pod of this process has.
pub fn new_id() -> PodId {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    PodId::from_random([NEXT.fetch_add(1, Ordering::Relaxed); 32])
}

pub fn config(n: u8) -> BridgeConfig {
    BridgeConfig::new(format!("bt{n}"), format!("berth_{n}"), format!("10.64.{n}.0/24").parse().unwrap())
}

/// The same with IPv6 (`fdbe:0:N::/64`).
pub fn dual(n: u8) -> BridgeConfig {
    BridgeConfig { subnet6: Some(format!("fdbe:0:{n}::/64").parse().unwrap()), ..config(n) }
}

pub fn port(protocol: Protocol, host_port: u16, container_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, container_port, host_port, host_ip: host_ip.map(|ip| ip.parse().unwrap()) }
}

pub fn tcp(host_port: u16, container_port: u16) -> PortMapping {
    port(Protocol::Tcp, host_port, container_port, None)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
