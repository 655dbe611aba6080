//! Processes that plugins left: found by the environment that every one of them inherits, so those are found too that left
//! the plugin's process group, and those of a daemon that was killed.
//! Must not: touch a process that was not started for the attachment, or by the call.
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// Longest environment that is looked at.
const MAX_ENVIRONMENT: u64 = 64 << 10;
/// How long killed processes may take to go; one in an uninterruptible sleep takes longer, and is not waited for.
const GONE_LIMIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The variable that names one call: what a call about the same attachment left before is none of its business.
pub(super) const CALL: &str = "BERTH_CNI_CALL";

/// Whose processes are meant.
pub(super) enum Of {
    /// Those that were started for one of these attachments, by whichever daemon.
    Containers(Vec<String>),
    /// Those of one call, by the value of [`CALL`].
    Call(String),
}

/// A name for a call that no other call has, of a former daemon neither.
pub(super) fn new_call() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", std::process::id(), since.as_nanos(), CALLS.fetch_add(1, Ordering::Relaxed))
}

/// Kills every process that is meant, waits until they are gone, and says how many there were. Blocks.
pub(super) fn kill_all(of: &Of) -> usize {
    let end = Instant::now() + GONE_LIMIT;
    let mut count = 0;
    loop {
        let found = find(of);
        if found.is_empty() {
            return count;
        }
        count = count.max(found.len());
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if Instant::now() >= end {
            return count;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn find(of: &Of) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if pid != own && pid > 1 && is_plugins(pid, of) {
            found.push(pid);
        }
    }
    found
}

/// A zombie has no environment any more.
fn is_plugins(pid: i32, of: &Of) -> bool {
    use std::io::Read;
    let mut bytes = Vec::new();
    let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) else { return false };
    if file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes).is_err() {
        return false;
    }
    let value = |name: &[u8]| bytes.split(|b| *b == 0).find_map(|v| v.strip_prefix(name));
    let for_container = |container: &String| value(b"CNI_CONTAINERID=") == Some(container.as_bytes());
    let meant = match of {
        Of::Containers(containers) => containers.iter().any(for_container),
        Of::Call(call) => value(format!("{CALL}=").as_bytes()) == Some(call.as_bytes()),
    };
    value(b"CNI_COMMAND=").is_some() && meant
}
