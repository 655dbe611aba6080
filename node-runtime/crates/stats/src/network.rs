//! Network counters of the network namespace that a process is in, from its /proc/PID/net/dev (proc_pid_net(5)).
use berth_model::{Error, Result, ResultExt};
use berth_sys::namespace;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A pod with a few interfaces needs some hundred bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Counters of one interface since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Name, such as `eth0`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets dropped when received.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets dropped when sent.
    pub tx_dropped: u64,
}

/// Interfaces of the network namespace of a process, without loopback. Errors: if the process is gone.
///
/// The caller keeps a pidfd or knows otherwise that the number is still the process's.
pub fn network_usage(pid: u32) -> Result<Vec<InterfaceUsage>> {
    read_table(&format!("/proc/{pid}/net/dev"))
}

/// Interfaces of network namespaces, without loopback, by the files that they are bound to: a pod without a process has one,
/// too. In the order of `namespaces`; `None` for one that cannot be entered.
///
/// A short-lived thread goes through them all, so that no thread of the runtime ever changes its namespace.
pub fn network_usage_in(namespaces: &[PathBuf]) -> Vec<Option<Vec<InterfaceUsage>>> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    let read_all = || namespaces.iter().map(|path| enter_and_read(path).ok()).collect();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("berth-netns".into()).spawn_scoped(scope, read_all);
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| vec![None; namespaces.len()])
    })
}

fn enter_and_read(path: &Path) -> Result<Vec<InterfaceUsage>> {
    let file = File::open(path).context(|| path.display())?;
    namespace::join(file.as_fd(), namespace::Kinds::NET)
        .map_err(Error::from)
        .context(|| format!("enter network namespace {}", path.display()))?;
    read_table("/proc/thread-self/net/dev")
}

fn read_table(path: &str) -> Result<Vec<InterfaceUsage>> {
    let mut text = String::new();
    let file = File::open(path).context(|| path.to_owned())?;
    file.take(MAX_FILE).read_to_string(&mut text).context(|| path.to_owned())?;
    Ok(parse_net_dev(&text))
}

/// Reads the text of `/proc/PID/net/dev`; lines that are not understood are left out.
pub fn parse_net_dev(text: &str) -> Vec<InterfaceUsage> {
    text.lines().filter_map(parse_line).filter(|interface| interface.name != "lo").collect()
}

/// `name: ` and eight numbers each for receiving (bytes packets errs drop fifo frame compressed multicast) and sending (bytes
/// packets errs drop fifo colls carrier compressed).
fn parse_line(line: &str) -> Option<InterfaceUsage> {
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
        numbers.as_slice()
    else {
        return None;
    };
    let name = name.trim().to_owned();
    Some(InterfaceUsage {
        name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0\n  \
            eth0:1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n garbage: 1 2\n";
        let expected = InterfaceUsage {
            name: "eth0".into(),
            rx_bytes: 1000,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 2000,
            tx_packets: 20,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(parse_net_dev(text), [expected]);
    }

    #[test]
    fn a_missing_process_is_an_error() {
        assert!(network_usage(u32::MAX).is_err());
        network_usage(std::process::id()).unwrap();
    }
}
