//! The sum of several groups' readings, for a pod whose group is not its own.
//!
//! Owns: what adding means. Must not: read anything. What cannot be added (pressure, limits, peaks) is absent in a sum.
use berth_cgroups::{CpuUsage, IoUsage, MemoryUsage, PidsUsage, Usage};
use berth_model::UnixNanos;

/// The sum at `taken_at`. Of no groups at all it is zero CPU, memory and tasks: nothing runs.
pub(crate) fn sum<'a>(taken_at: UnixNanos, parts: impl Iterator<Item = &'a Usage>) -> Usage {
    let empty = Usage {
        taken_at,
        cpu: Some(CpuUsage::default()),
        memory: Some(MemoryUsage::default()),
        pids: Some(PidsUsage::default()),
        ..Usage::default()
    };
    parts.fold(empty, |mut total, part| {
        merge(&mut total.cpu, part.cpu.as_ref(), add_cpu);
        merge(&mut total.memory, part.memory.as_ref(), add_memory);
        merge(&mut total.swap, part.swap.as_ref(), |total, part| total.usage += part.usage);
        merge(&mut total.pids, part.pids.as_ref(), |total, part| total.current += part.current);
        merge(&mut total.io, part.io.as_ref(), add_io);
        for part in &part.hugepages {
            match total.hugepages.iter_mut().find(|h| h.page_size == part.page_size) {
                Some(found) => found.usage += part.usage,
                None => total.hugepages.push(berth_cgroups::HugepageUsage { peak: None, ..part.clone() }),
            }
        }
        total
    })
}

fn merge<T: Default>(total: &mut Option<T>, part: Option<&T>, add: impl FnOnce(&mut T, &T)) {
    if let Some(part) = part {
        add(total.get_or_insert_default(), part);
    }
}

fn add_cpu(total: &mut CpuUsage, part: &CpuUsage) {
    total.total += part.total;
    total.user += part.user;
    total.system += part.system;
    total.periods += part.periods;
    total.throttled_periods += part.throttled_periods;
    total.throttled += part.throttled;
}

fn add_memory(total: &mut MemoryUsage, part: &MemoryUsage) {
    total.usage += part.usage;
    total.working_set += part.working_set;
    total.rss += part.rss;
    total.page_faults += part.page_faults;
    total.major_page_faults += part.major_page_faults;
    total.cache += part.cache;
    total.mapped_file += part.mapped_file;
    total.kernel += part.kernel;
    total.limit_hits += part.limit_hits;
    total.oom_kills += part.oom_kills;
}

fn add_io(total: &mut IoUsage, part: &IoUsage) {
    total.read_bytes += part.read_bytes;
    total.write_bytes += part.write_bytes;
    total.reads += part.reads;
    total.writes += part.writes;
    for part in &part.devices {
        match total.devices.iter_mut().find(|d| (d.major, d.minor) == (part.major, part.minor)) {
            Some(found) => {
                found.read_bytes += part.read_bytes;
                found.write_bytes += part.write_bytes;
                found.reads += part.reads;
                found.writes += part.writes;
            }
            None => total.devices.push(part.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_cgroups::{DeviceIo, SwapUsage};

    #[test]
    fn readings_add_up() {
        let device = |minor| DeviceIo { major: 8, minor, reads: 1, ..DeviceIo::default() };
        let one = |devices: Vec<DeviceIo>| Usage {
            taken_at: 1,
            cpu: Some(CpuUsage { total: 5, ..CpuUsage::default() }),
            memory: Some(MemoryUsage { working_set: 7, limit: Some(9), ..MemoryUsage::default() }),
            swap: Some(SwapUsage { usage: 2, available: Some(1) }),
            io: Some(IoUsage { reads: 2, devices, ..IoUsage::default() }),
            ..Usage::default()
        };
        let both = [one(vec![device(0), device(16)]), one(vec![device(16)])];
        let total = sum(3, both.iter());
        assert_eq!(total.taken_at, 3);
        assert_eq!(total.cpu.unwrap().total, 10);
        assert_eq!(total.memory.unwrap(), MemoryUsage { working_set: 14, ..MemoryUsage::default() });
        assert_eq!(total.swap.unwrap(), SwapUsage { usage: 4, available: None });
        let io = total.io.unwrap();
        assert_eq!((io.reads, io.devices.iter().map(|d| d.reads).collect::<Vec<_>>()), (4, vec![1, 2]));
    }

    #[test]
    fn nothing_is_zero_and_not_absent() {
        let total = sum(3, std::iter::empty());
        assert_eq!((total.cpu, total.memory), (Some(CpuUsage::default()), Some(MemoryUsage::default())));
        assert_eq!((total.swap, total.io), (None, None));
    }
}
