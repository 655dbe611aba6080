//! Figures of the daemon's own process, under the names that Prometheus client libraries share. Read from /proc/self at each
//! scrape (proc_pid_stat(5)).
use prometheus::{Counter, Gauge, Opts, Registry};
use std::sync::Arc;

/// Clock ticks a second: USER_HZ is 100 on every architecture that we run on.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Handles; cheap to clone.
#[derive(Clone)]
pub struct ProcessFigures(Arc<Figures>);

struct Figures {
    cpu: Counter,
    resident: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    started: Gauge,
}

impl ProcessFigures {
    /// Creates and registers them.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::with_opts(Opts::new(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let cpu = Counter::with_opts(Opts::new("process_cpu_seconds_total", "CPU time of the daemon in seconds."))?;
        registry.register(Box::new(cpu.clone()))?;
        Ok(Self(Arc::new(Figures {
            cpu,
            resident: gauge("process_resident_memory_bytes", "Resident memory of the daemon in bytes.")?,
            open_fds: gauge("process_open_fds", "Open descriptors of the daemon.")?,
            max_fds: gauge("process_max_fds", "Most descriptors that the daemon may open.")?,
            threads: gauge("process_threads", "Threads of the daemon.")?,
            started: gauge("process_start_time_seconds", "Start of the daemon, in seconds since 1970.")?,
        })))
    }

    /// Reads them anew. What cannot be read keeps its last value.
    pub fn read(&self) {
        let figures = &*self.0;
        if let Some(stat) = Stat::read() {
            figures.cpu.inc_by((stat.cpu_seconds - figures.cpu.get()).max(0.0));
            figures.resident.set(stat.resident);
            figures.threads.set(stat.threads);
            if let Some(boot) = boot_time() {
                figures.started.set(boot + stat.started_seconds);
            }
        }
        if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
            figures.open_fds.set(fds.count() as f64);
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            figures.max_fds.set(limit as f64);
        }
    }
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_seconds: f64,
    resident: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields from `state` (3) on; the name before them may hold anything.
        let fields: Vec<f64> = text.rsplit_once(')')?.1.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            threads: field(20)?,
            started_seconds: field(22)? / TICKS,
            resident: field(24)? * PAGE,
        })
    }
}

fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_this_process() {
        let registry = Registry::new();
        let figures = ProcessFigures::new(&registry).unwrap();
        figures.read();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - figures.0.started.get()).abs() < 3600.0, "started {}", figures.0.started.get());
        assert!(figures.0.resident.get() > 100_000.0);
        assert!(figures.0.open_fds.get() >= 3.0);
    }
}
