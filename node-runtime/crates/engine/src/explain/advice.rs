//! One sentence on what took most of a start's time, and what can be done. Pure.
use super::{Line, LineKind};

/// A start that is quicker than this is not slow, whatever it spent its time on.
const QUICK: u64 = 100_000;
/// A step that takes so many times its median is told, if it also cost [`NOTABLE`].
const SLOWER: u64 = 3;
/// Time that people notice.
const NOTABLE: u64 = 5_000;
/// Steps that are told as slower than usual, at most.
const MOST: usize = 3;

/// What to say of a report: first what dominated, then what was slower than usual.
pub(super) fn advice(total: u64, lines: &[Line]) -> Vec<String> {
    let mut said = Vec::new();
    if let Some((line, own)) = longest(lines) {
        let share = own.saturating_mul(100) / total.max(1);
        let whose = if line.container.is_empty() { String::new() } else { format!(" (container {})", line.container) };
        let what = match line.kind {
            LineKind::Between => "the time between two calls".to_owned(),
            LineKind::Unaccounted => "time that no step accounts for".to_owned(),
            LineKind::Operation | LineKind::Step => line.name.clone(),
        };
        let mut sentence = format!("{what}{whose} took {} of {}, {share} %", ms(own), ms(total));
        if total < QUICK {
            sentence.push_str("; nothing about this start is slow.");
        } else {
            sentence.push_str(": ");
            sentence.push_str(remedy(line));
        }
        said.push(sentence);
    }
    let mut slower: Vec<&Line> = lines
        .iter()
        .filter(|l| l.usual.is_some_and(|usual| l.micros > usual.saturating_mul(SLOWER) && l.micros > usual + NOTABLE))
        .collect();
    slower.sort_by_key(|l| std::cmp::Reverse(l.micros));
    let told = slower.into_iter().take(MOST);
    said.extend(
        told.map(|l| format!("{} took {}, usually {}.", l.name, ms(l.micros), ms(l.usual.unwrap_or_default()))),
    );
    said
}

/// The line with the most time of its own: what its parts took is theirs. Parts that run side by side may take more than the whole.
fn longest(lines: &[Line]) -> Option<(&Line, u64)> {
    let own = lines.iter().enumerate().map(|(i, line)| {
        let parts = lines[i + 1..].iter().take_while(|l| l.depth > line.depth);
        let taken: u64 = parts.filter(|l| l.depth == line.depth + 1).map(|l| l.micros).sum();
        (line, line.micros.saturating_sub(taken))
    });
    own.max_by_key(|(_, own)| *own).filter(|(_, own)| *own > 0)
}

/// The start of a step's name, and what to do about it; the longest match counts.
const REMEDIES: [(&str, &str); 19] = [
    (
        "pull/resolve",
        "the registry was slow to answer; `berth doctor image-pulls` looks at what pulls ran into, and a mirror nearby helps.",
    ),
    (
        "pull/fetch",
        "the image came over the network; a mirror nearby (spec.registries), a smaller image, or pulling it ahead helps.",
    ),
    ("pull", "the image was not on the node; pulling it ahead or a mirror nearby (spec.registries) helps."),
    (
        "run/monitor",
        "the monitor was slow to start: the node is short of CPU or disk; see /proc/pressure/cpu and /proc/pressure/io.",
    ),
    (
        "run/network",
        "the pod's network was slow; with CNI the plugin's own log says why, and `berth doctor network` looks at the node's.",
    ),
    (
        "run/record",
        "the disk of the daemon's state was slow to sync; see /proc/pressure/io and the disk below /var/lib/berth.",
    ),
    (
        "create/record",
        "the disk of the daemon's state was slow to sync; see /proc/pressure/io and the disk below /var/lib/berth.",
    ),
    (
        "create/rootfs",
        "files of the image's VOLUME paths were copied; mount a volume of the pod there, and nothing is copied.",
    ),
    (
        "create/image-volumes",
        "layers of an image volume were searched for its sub-path; mount the whole image instead.",
    ),
    (
        "run/namespaces/systemd",
        "systemd was slow to make the scope; see `systemctl list-jobs` and systemd's own CPU time.",
    ),
    (
        "start/setup/systemd",
        "systemd was slow to make the scope; see `systemctl list-jobs` and systemd's own CPU time.",
    ),
    (
        "start/setup/sources",
        "a source of a mount was slow to open: a network file system that hangs? Its server and `dmesg` tell.",
    ),
    (
        "start/setup/mounts",
        "the container's mounts took this long: many of them, or a file system that is slow to mount.",
    ),
    (
        "start/setup/rootfs",
        "the image's layers were slow to mount: many layers, or a slow disk; see /proc/pressure/io.",
    ),
    (
        "start/cgroup",
        "the control groups were slow to be made; see the number of groups in /proc/cgroups and /proc/pressure/cpu.",
    ),
    ("start/setup/cgroup", "the process waited for its control group; see /proc/pressure/cpu."),
    ("start/spawn", "the monitor was slow to start a process: the node is short of CPU; see /proc/pressure/cpu."),
    ("start/exec", "executing the program took this long: its file was read from a slow disk; see /proc/pressure/io."),
    ("start/wait", "another operation on the same container was under way."),
];

/// What to do about it.
fn remedy(line: &Line) -> &'static str {
    match line.kind {
        LineKind::Between => {
            "whoever gives the orders let it pass: the kubelet prepares volumes, secrets and earlier containers; its log says what it \
             waited for."
        }
        LineKind::Unaccounted => {
            "the daemon did not get to run, or waited outside of its steps: the node is short of CPU; see /proc/pressure/cpu."
        }
        LineKind::Operation | LineKind::Step => {
            let found =
                REMEDIES.iter().filter(|(name, _)| line.name.starts_with(name)).max_by_key(|(name, _)| name.len());
            found.map_or("see /proc/pressure/cpu and /proc/pressure/io for what the node was short of.", |(_, what)| {
                what
            })
        }
    }
}

/// Microseconds for people.
fn ms(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..10_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: LineKind, name: &str, depth: u32, micros: u64, usual: Option<u64>) -> Line {
        Line { kind, name: name.into(), container: "app".into(), depth, at: 0, micros, usual }
    }

    #[test]
    fn what_dominated_is_told_with_a_remedy() {
        let lines = [
            line(LineKind::Operation, "start", 0, 900_000, None),
            line(LineKind::Step, "start/spawn", 1, 14_000, Some(1_300)),
            line(LineKind::Step, "start/setup", 1, 886_000, Some(5_000)),
            line(LineKind::Step, "start/setup/systemd", 2, 800_000, Some(2_000)),
        ];
        let said = advice(1_000_000, &lines);
        assert!(
            said[0].starts_with("start/setup/systemd (container app) took 800 ms of 1000 ms, 80 %: systemd"),
            "{said:?}"
        );
        assert_eq!(said[1], "start/setup took 886 ms, usually 5.0 ms.");
        assert_eq!(said[3], "start/spawn took 14 ms, usually 1.3 ms.");
        assert_eq!(said.len(), 4);
    }

    #[test]
    fn quick_starts_are_called_so() {
        let lines = [
            line(LineKind::Operation, "run", 0, 5_000, None),
            line(LineKind::Step, "run/monitor", 1, 4_000, Some(3_000)),
        ];
        let said = advice(5_000, &lines);
        assert_eq!(
            said,
            ["run/monitor (container app) took 4.0 ms of 5.0 ms, 80 %; nothing about this start is slow."]
        );
        assert_eq!(advice(0, &[]), [""; 0]);
    }

    #[test]
    fn waiting_for_others_is_not_the_nodes_fault() {
        let lines = [
            line(LineKind::Operation, "run", 0, 5_000, None),
            line(LineKind::Between, "between", 0, 12_000_000, None),
            line(LineKind::Operation, "create", 0, 5_000, None),
        ];
        let said = advice(12_010_000, &lines);
        assert!(said[0].contains("12.0 s of 12.0 s") && said[0].contains("kubelet"), "{said:?}");
    }
}
