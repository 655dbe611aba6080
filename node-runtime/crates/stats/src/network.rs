//! Network counters of the network namespace that a process is in, from its /proc/PID/net/dev (proc_pid_net(5)).
use berth_model::{Result, ResultExt};
use std::io::Read as _;

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
    let path = format!("/proc/{pid}/net/dev");
    let mut text = String::new();
    let file = std::fs::File::open(&path).context(|| path.clone())?;
    file.take(MAX_FILE).read_to_string(&mut text).context(|| path)?;
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
