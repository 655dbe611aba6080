//! What the kernel's log says of processes that the OOM killer has ended (`__oom_kill_process`, mm/oom_kill.c). It names each of them by
//! its number, also where the control group that counted it is gone: systemd removes a scope with its last process.
//!
//! Owns: reading /dev/kmsg (Documentation/ABI/testing/dev-kmsg). Must not: believe what a process has written there.
use berth_model::{Result, ResultExt, UnixNanos};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LOG: &str = "/dev/kmsg";
/// The node's own PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h): the log's numbers are of this one.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Longest record (`PRINTK_MESSAGE_MAX` of 2 KiB with what goes before and after it); a shorter buffer is EINVAL.
const RECORD: usize = 8192;
/// Most records that are read: more than the largest buffer of a kernel that somebody would build holds.
const MAX_RECORDS: usize = 1 << 20;
/// How far the log's clock may be from the wall clock's: it is not disciplined, and both may have been set.
const CLOCKS: Duration = Duration::from_secs(300);
/// EPIPE: records were overwritten before they were read.
const OVERWRITTEN: i32 = 32;

/// Whether the kernel's log says that the OOM killer has ended this process, of the node's PID namespace, between these times.
/// False in another PID namespace, where numbers mean something else. Errors: the log cannot be read.
pub fn oom_killed(pid: u32, started_at: UnixNanos, ended_at: UnixNanos) -> Result<bool> {
    if std::fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() != FIRST_PID_NAMESPACE) {
        return Ok(false);
    }
    let booted = booted().context(|| "/proc/uptime")?;
    let wall = |time: UnixNanos| Duration::from_nanos(u64::try_from(time).unwrap_or_default());
    let (from, until) = (wall(started_at).saturating_sub(CLOCKS), wall(ended_at) + CLOCKS);
    let mut log = File::options().read(true).custom_flags(nonblocking()).open(LOG).context(|| LOG)?;
    let mut record = [0; RECORD];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => return Ok(false),
            Ok(length) => {
                let kill = Kill::parse(&record[..length]);
                if kill.is_some_and(|kill| kill.pid == pid && (from..=until).contains(&(booted + kill.at))) {
                    return Ok(true);
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted || e.raw_os_error() == Some(OVERWRITTEN) => {}
            Err(e) => return Err(e).context(|| LOG),
        }
    }
    Ok(false)
}

fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default()
}

/// When the kernel was booted, since 1970.
fn booted() -> std::io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    let up = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or(ErrorKind::InvalidData)?;
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(up))
}

/// One process that was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kill {
    pid: u32,
    /// Since boot.
    at: Duration,
}

impl Kill {
    /// `priority,sequence,microseconds,flags[,…];text`, of the kernel itself: what others write there has another facility.
    fn parse(record: &[u8]) -> Option<Self> {
        let (head, text) = std::str::from_utf8(record).ok()?.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let at = Duration::from_micros(fields.nth(1)?.parse().ok()?);
        // "Out of memory", "Out of memory (oom_kill_allocating_task)", "Memory cgroup out of memory".
        let by_oom = ["Out of memory", "Memory cgroup out of memory"].iter().any(|why| text.starts_with(why));
        if priority >> 3 != 0 || !by_oom {
            return None;
        }
        // The first of these words: a process's name, which is anybody's choice, comes after its number.
        let (_, rest) = text.split_once(": Killed process ")?;
        Some(Self { pid: rest.split(' ').next()?.parse().ok()?, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &[u8] = b"3,1017,421080000,-;Memory cgroup out of memory: Killed process 421 (web) total-vm:70000kB, \
        anon-rss:16000kB, file-rss:512kB, shmem-rss:0kB, UID:0 pgtables:80kB oom_score_adj:1000\n";

    #[test]
    fn kills_are_found_and_nothing_else() {
        let at = Duration::from_secs_f64(421.08);
        assert_eq!(Kill::parse(REAL), Some(Kill { pid: 421, at }));
        let with = |head: &str, text: &str| Kill::parse(format!("{head};{text}\n SUBSYSTEM=x\n").as_bytes());
        let killed = "Out of memory: Killed process 7 (a) total-vm";
        assert_eq!(with("3,1,5,-,caller=T9", killed), Some(Kill { pid: 7, at: Duration::from_micros(5) }));
        assert_eq!(with("11,1,5,-", killed), None, "written by a process");
        assert_eq!(with("6,1,5,-", "x: Out of memory: Killed process 7 (a)"), None);
        assert_eq!(
            with("3,1,5,-", "Out of memory: Killed process 8 (: Killed process 7 (a)) x").map(|k| k.pid),
            Some(8)
        );
        assert_eq!(with("3,1,5,-", "oom_reaper: reaped process 7 (a), now anon-rss:0kB"), None);
    }

    proptest! {
        #[test]
        fn any_record_is_read(record in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Kill::parse(&record);
        }
    }

    #[test]
    fn somebody_who_was_not_killed_is_not_found() {
        // Without root the log may be unreadable, which is an error and not a "no".
        assert!(oom_killed(std::process::id(), 0, i64::MAX).map_or(true, |found| !found));
    }
}
