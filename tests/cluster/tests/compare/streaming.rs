//! What the two runtimes take for moving bytes between clients and pods: processor time of the runtime's own processes for each GiB.
//!
//! Must not: count what kubectl, the API server and the kubelet take, through whose hands every byte goes.
use super::costs::processor;
use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::images;
use berth_cluster_tests::kubectl::Transport;
use serde_json::json;
use std::io::Read;
use std::time::{Duration, Instant};

/// Bytes of each measurement.
const MOVED: u64 = 256 << 20;
const PORT: u16 = 81;

/// One way, and what it took.
pub struct Moved {
    pub name: &'static str,
    /// Of the processor, for each GiB.
    pub processor: Duration,
    /// Until all had come.
    pub took: Duration,
}

/// All ways, one after the other.
pub fn measure(cluster: &Cluster) -> Vec<Moved> {
    let namespace = cluster.namespace("costs-streams");
    let source = format!("head -c {MOVED} /dev/zero");
    let listen = format!("nc -lk -p {PORT} -e {source}");
    namespace.pod(
        "source",
        &json!({"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", listen]}]}),
    );
    let exec = |transport| {
        let mut client = namespace.kubectl.over(transport).spawn(&["exec", "source", "--", "sh", "-c", &source]);
        assert_eq!(drained(client.child.stdout.as_mut().unwrap()), MOVED);
        assert!(client.child.wait().unwrap().success());
    };
    let forward = |transport| {
        let mut client = namespace.kubectl.over(transport).spawn(&["port-forward", "pod/source", &format!(":{PORT}")]);
        let line = client.read_until(&format!(" -> {PORT}\n"));
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
        let mut socket = cluster.space().connect(address).unwrap();
        assert_eq!(drained(&mut socket), MOVED);
    };
    let ways: [(&'static str, &dyn Fn()); 4] = [
        ("exec over WebSocket", &|| exec(Transport::WebSocket)),
        ("exec over SPDY", &|| exec(Transport::Spdy)),
        ("port-forward over WebSocket", &|| forward(Transport::WebSocket)),
        ("port-forward over SPDY", &|| forward(Transport::Spdy)),
    ];
    // What moves the streams is there before anything is counted.
    namespace.kubectl.run(&["exec", "source", "--", "true"]);
    ways.into_iter().map(|(name, way)| timed(cluster, name, way)).collect()
}

fn timed(cluster: &Cluster, name: &'static str, way: &dyn Fn()) -> Moved {
    let (before, began) = (processor(cluster), Instant::now());
    way();
    let took = began.elapsed();
    let spent = processor(cluster) - before;
    assert!(!spent.is_zero(), "{name}: nothing is counted");
    Moved { name, processor: spent * u32::try_from((1u64 << 30) / MOVED).unwrap(), took }
}

fn drained(from: &mut impl Read) -> u64 {
    std::io::copy(from, &mut std::io::sink()).unwrap()
}
