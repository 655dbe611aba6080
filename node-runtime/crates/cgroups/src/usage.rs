//! Readings of a group: CPU, memory, swap, processes, I/O, pressure. Missing controllers give `None`, never an error.
use crate::io::{IoUsage, io_v1, io_v2};
use crate::view::View;
use crate::{CgroupPath, Cgroups, Layout};
use berth_model::{Result, UnixNanos};
use std::time::{SystemTime, UNIX_EPOCH};

/// v1's "no limit", see `v1.rs`.
const UNLIMITED: u64 = 1 << 62;
/// The lines of v2's memory.stat that make up the kernel's memory.
const KERNEL_PARTS: [&str; 4] = ["kernel_stack", "pagetables", "slab", "sock"];

/// What a group uses. Counters count from the making of the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it was read.
    pub taken_at: UnixNanos,
    /// CPU.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Swap.
    pub swap: Option<SwapUsage>,
    /// Processes and threads.
    pub pids: Option<PidsUsage>,
    /// I/O.
    pub io: Option<IoUsage>,
    /// Huge pages by size; empty without the controller.
    pub hugepages: Vec<HugepageUsage>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// Consumed in all.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Those in which the group was held back.
    pub throttled_periods: u64,
    /// For how long it was held back.
    pub throttled: u64,
    /// Pressure.
    pub pressure: Option<Pressure>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All that is charged.
    pub usage: u64,
    /// Without file pages that nobody used lately: what the kubelet evicts by.
    pub working_set: u64,
    /// Limit minus working set, with a limit.
    pub available: Option<u64>,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Those that read from disk.
    pub major_page_faults: u64,
    /// File pages.
    pub cache: u64,
    /// File pages that are mapped.
    pub mapped_file: u64,
    /// What the kernel keeps for the group.
    pub kernel: u64,
    /// How often the limit was hit.
    pub limit_hits: u64,
    /// The most that was charged at once, if the kernel tells.
    pub peak: Option<u64>,
    /// The limit.
    pub limit: Option<u64>,
    /// OOM kills.
    pub oom_kills: u64,
    /// Pressure.
    pub pressure: Option<Pressure>,
}

/// Swap in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwapUsage {
    /// In use.
    pub usage: u64,
    /// Limit minus usage, with a limit.
    pub available: Option<u64>,
}

/// Tasks: processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsUsage {
    /// Now.
    pub current: u64,
    /// The limit.
    pub limit: Option<u64>,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugepageUsage {
    /// Size as the kernel writes it, such as `2MB`.
    pub page_size: String,
    /// In use.
    pub usage: u64,
    /// The most that was in use at once; the kernel tells it on v1 only.
    pub peak: Option<u64>,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some task waited.
    pub some: PressureLine,
    /// All of them waited.
    pub full: PressureLine,
}

// The averages are read from decimal text and never NaN.
impl Eq for Pressure {}

/// Shares of time in percent and the sum of waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Over ten seconds.
    pub avg10: f64,
    /// Over a minute.
    pub avg60: f64,
    /// Over five minutes.
    pub avg300: f64,
    /// Microseconds since the group was made.
    pub total: u64,
}

impl Cgroups {
    /// Reads what a group uses. Errors: `NotFound`.
    pub fn usage(&self, path: &CgroupPath) -> Result<Usage> {
        let view = self.view(path)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let v2 = self.layout() == Layout::V2;
        let memory = if v2 { memory_v2(&view) } else { memory_v1(&view) };
        Ok(Usage {
            taken_at: UnixNanos::try_from(now.as_nanos()).unwrap_or(UnixNanos::MAX),
            cpu: if v2 { cpu_v2(&view) } else { cpu_v1(&view) },
            swap: memory.as_ref().and_then(|m| if v2 { swap_v2(&view) } else { swap_v1(&view, m) }),
            memory,
            pids: view
                .number("pids", "pids.current")
                .map(|current| PidsUsage { current, limit: view.number("pids", "pids.max") }),
            io: if v2 { io_v2(&view) } else { io_v1(&view) },
            hugepages: hugepages(&view, v2),
        })
    }
}

fn cpu_v2(view: &View) -> Option<CpuUsage> {
    let stat = view.read("cpu", "cpu.stat")?;
    let nanos = |name| field(&stat, name).unwrap_or_default().saturating_mul(1000);
    Some(CpuUsage {
        total: nanos("usage_usec"),
        user: nanos("user_usec"),
        system: nanos("system_usec"),
        periods: field(&stat, "nr_periods").unwrap_or_default(),
        throttled_periods: field(&stat, "nr_throttled").unwrap_or_default(),
        throttled: nanos("throttled_usec"),
        pressure: pressure(view, "cpu.pressure"),
    })
}

fn cpu_v1(view: &View) -> Option<CpuUsage> {
    let stat = view.read("cpu", "cpu.stat").unwrap_or_default();
    let number = |name| field(&stat, name).unwrap_or_default();
    Some(CpuUsage {
        total: view.number("cpuacct", "cpuacct.usage")?,
        user: view.number("cpuacct", "cpuacct.usage_user").unwrap_or_default(),
        system: view.number("cpuacct", "cpuacct.usage_sys").unwrap_or_default(),
        periods: number("nr_periods"),
        throttled_periods: number("nr_throttled"),
        throttled: number("throttled_time"),
        pressure: pressure(view, "cpu.pressure"),
    })
}

fn memory_v2(view: &View) -> Option<MemoryUsage> {
    let usage = view.number("memory", "memory.current")?;
    let stat = view.read("memory", "memory.stat").unwrap_or_default();
    let number = |name| field(&stat, name).unwrap_or_default();
    let limit = view.number("memory", "memory.max");
    let working_set = usage.saturating_sub(number("inactive_file"));
    let events = view.read("memory", "memory.events").unwrap_or_default();
    // `kernel` is there from 5.18 on; before, its larger parts are.
    let kernel = || field(&stat, "kernel").unwrap_or_else(|| KERNEL_PARTS.into_iter().map(number).sum());
    Some(MemoryUsage {
        usage,
        working_set,
        available: limit.map(|limit| limit.saturating_sub(working_set)),
        rss: number("anon"),
        page_faults: number("pgfault"),
        major_page_faults: number("pgmajfault"),
        cache: number("file"),
        mapped_file: number("file_mapped"),
        kernel: kernel(),
        limit_hits: field(&events, "max").unwrap_or_default(),
        peak: view.number("memory", "memory.peak"),
        limit,
        oom_kills: field(&events, "oom_kill").unwrap_or_default(),
        pressure: pressure(view, "memory.pressure"),
    })
}

fn memory_v1(view: &View) -> Option<MemoryUsage> {
    let usage = view.number("memory", "memory.usage_in_bytes")?;
    let stat = view.read("memory", "memory.stat").unwrap_or_default();
    let number = |name| field(&stat, name).unwrap_or_default();
    let limit = view.number("memory", "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED);
    let working_set = usage.saturating_sub(number("total_inactive_file"));
    Some(MemoryUsage {
        usage,
        working_set,
        available: limit.map(|limit| limit.saturating_sub(working_set)),
        rss: number("total_rss"),
        page_faults: number("total_pgfault"),
        major_page_faults: number("total_pgmajfault"),
        cache: number("total_cache"),
        mapped_file: number("total_mapped_file"),
        kernel: view.number("memory", "memory.kmem.usage_in_bytes").unwrap_or_default(),
        limit_hits: view.number("memory", "memory.failcnt").unwrap_or_default(),
        peak: view.number("memory", "memory.max_usage_in_bytes"),
        limit,
        oom_kills: field(&view.read("memory", "memory.oom_control").unwrap_or_default(), "oom_kill")
            .unwrap_or_default(),
        pressure: pressure(view, "memory.pressure"),
    })
}

fn swap_v2(view: &View) -> Option<SwapUsage> {
    let usage = view.number("memory", "memory.swap.current")?;
    let limit = view.number("memory", "memory.swap.max");
    Some(SwapUsage { usage, available: limit.map(|limit| limit.saturating_sub(usage)) })
}

fn swap_v1(view: &View, memory: &MemoryUsage) -> Option<SwapUsage> {
    let usage = view.number("memory", "memory.memsw.usage_in_bytes")?.saturating_sub(memory.usage);
    let both = view.number("memory", "memory.memsw.limit_in_bytes").filter(|limit| *limit < UNLIMITED);
    let limit = both.zip(memory.limit).map(|(both, limit)| both.saturating_sub(limit));
    Some(SwapUsage { usage, available: limit.map(|limit| limit.saturating_sub(usage)) })
}

/// v2 has `hugetlb.SIZE.current`, v1 `hugetlb.SIZE.usage_in_bytes` and `.max_usage_in_bytes`.
fn hugepages(view: &View, v2: bool) -> Vec<HugepageUsage> {
    let suffix = if v2 { ".current" } else { ".usage_in_bytes" };
    let entries = view.group("hugetlb").and_then(|group| group.entries().ok()).unwrap_or_default();
    let mut sizes: Vec<HugepageUsage> = entries
        .iter()
        .filter_map(|(file, _)| {
            let page_size = file.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            // `hugetlb.2MB.rsvd.current`, `hugetlb.2MB.max_usage_in_bytes`
            if !page_size.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return None;
            }
            let peak = view.number("hugetlb", &format!("hugetlb.{page_size}.max_usage_in_bytes"));
            Some(HugepageUsage { page_size: page_size.to_owned(), usage: view.number("hugetlb", file)?, peak })
        })
        .collect();
    sizes.sort_by(|a, b| a.page_size.cmp(&b.page_size));
    sizes
}

/// Pressure is the core's own, so the v2 tree of a hybrid machine has it, too. `None` where PSI is off.
pub(crate) fn pressure(view: &View, file: &str) -> Option<Pressure> {
    let text = view.v2.as_ref()?.read(file).ok()?;
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let target = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "avg10" => target.avg10 = value.parse().unwrap_or_default(),
                "avg60" => target.avg60 = value.parse().unwrap_or_default(),
                "avg300" => target.avg300 = value.parse().unwrap_or_default(),
                "total" => target.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    Some(pressure)
}

/// A number in a file of `name value` lines.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_files_become_readings() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory io pids\n").unwrap();
        std::fs::create_dir(dir.path().join("g")).unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join("g").join(name), text).unwrap();
        put(
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
        );
        put(
            "cpu.pressure",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
        );
        put("memory.current", "10000\n");
        put("memory.max", "20000\n");
        put("hugetlb.2MB.current", "2097152\n");
        put("hugetlb.2MB.rsvd.current", "0\n");
        put(
            "memory.stat",
            "anon 6000\nfile 4000\nkernel_stack 10\nslab 20\nfile_mapped 30\ninactive_file 3000\npgfault 11\npgmajfault 2\n",
        );
        put("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n");
        put("memory.swap.current", "100\n");
        put("memory.swap.max", "max\n");
        put("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n");
        put("pids.current", "3\n");
        put("pids.max", "max\n");
        let cgroups = Cgroups::v2_at(dir.path());
        let path = CgroupPath::plain("g").unwrap();
        let usage = cgroups.usage(&path).unwrap();
        let cpu = usage.cpu.unwrap();
        assert_eq!((cpu.total, cpu.user, cpu.throttled, cpu.throttled_periods), (1_500_000, 1_000_000, 7000, 1));
        let psi = cpu.pressure.unwrap();
        assert_eq!((psi.some.avg10, psi.some.total, psi.full.total), (1.5, 123, 9));
        let memory = usage.memory.unwrap();
        assert_eq!((memory.working_set, memory.available, memory.rss, memory.oom_kills), (7000, Some(13_000), 6000, 2));
        assert_eq!((memory.kernel, memory.mapped_file, memory.limit_hits), (30, 30, 3));
        // Kernels have `memory.peak` from 5.19 on.
        assert_eq!(memory.peak, None);
        put("memory.peak", "20000\n");
        assert_eq!(cgroups.usage(&path).unwrap().memory.unwrap().peak, Some(20_000));
        let huge = HugepageUsage { page_size: "2MB".into(), usage: 2 << 20, peak: None };
        assert_eq!(usage.hugepages, [huge]);
        assert_eq!(usage.swap.unwrap(), SwapUsage { usage: 100, available: None });
        assert_eq!(usage.pids.unwrap(), PidsUsage { current: 3, limit: None });
        let io = usage.io.unwrap();
        assert_eq!((io.read_bytes, io.write_bytes, io.reads, io.writes, io.pressure), (15, 20, 2, 2, None));
        assert_eq!((io.devices.len(), io.devices[1].major, io.devices[1].minor), (2, 8, 16));
        assert_eq!(cgroups.oom_kills(&path).unwrap(), 2);
    }

    #[test]
    fn fields_are_whole_words() {
        assert_eq!(field("oom 1\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(field("oom_kill_x 2\n", "oom_kill"), None);
    }
}
