//! The daemon itself: there, answering, for root alone, its monitors; and what dead pods left.
use crate::doctor::facts::{Answer, Daemon, Facts};
use crate::doctor::finding::{
    CONDITION, DAEMON_DOWN, DAEMON_STUCK, Finding, LEFTOVER, MONITOR_OLD, MONITOR_SILENT, NOT_ROOT, SOCKET_OPEN,
};

/// Leftovers that are named; the others are counted.
const NAMED: usize = 5;

pub(super) fn daemon(facts: &Facts, found: &mut Vec<Finding>) {
    let daemon = &facts.daemon;
    if !facts.root {
        found.push(NOT_ROOT.found("the doctor runs as an ordinary user", format!("sudo berth{} doctor", daemon.flags)));
    }
    answer(daemon, found);
    for (path, owner, mode) in &daemon.sockets {
        if *owner != 0 || mode & 0o077 != 0 {
            let what = format!(
                "{} belongs to user {owner} with mode {mode:04o}; it is to be root's with 0600",
                path.display()
            );
            found.push(SOCKET_OPEN.found(what, format!("chown root: {0} && chmod 0600 {0}", path.display())));
        }
    }
    if let Some(told) = &daemon.told {
        // The network has a check of its own.
        for condition in told.conditions.iter().filter(|c| !c.ok && c.kind != "NetworkReady") {
            let what = format!("{} is false ({}): {}", condition.kind, condition.reason, condition.message);
            found.push(CONDITION.found(what, "journalctl -u berth -p warning --since -1h"));
        }
        if let Some(silent) = told.monitors.get(&0).filter(|n| **n > 0) {
            let what = format!("{silent} of {} monitors do not answer the daemon", told.monitors.values().sum::<u32>());
            let fix = format!(
                "ps -C berth-monitor -o pid,stat,args; then berth{} rm -f the pods of those in state T or D",
                daemon.flags
            );
            found.push(MONITOR_SILENT.found(what, fix));
        }
    }
    if daemon.old_monitors > 0 {
        let what = format!("{} monitors run a program that has been replaced since", daemon.old_monitors);
        found.push(MONITOR_OLD.found(what, "nothing; or make the pods anew at a time that suits"));
    }
}

fn answer(daemon: &Daemon, found: &mut Vec<Finding>) {
    let socket = daemon.node_socket.display();
    if let Some(problem) = &daemon.problem {
        found.push(CONDITION.found(format!("{socket} answers with an error: {problem}"), "journalctl -u berth -n 50"));
    }
    match daemon.answer {
        // Only root may ask: that the doctor is not is told by itself.
        Answer::Up | Answer::Forbidden => {}
        Answer::Down => {
            let start =
                if daemon.flags.is_empty() { "systemctl start berth" } else { "start `berth serve` with this root" };
            found.push(DAEMON_DOWN.found(
                format!("nobody serves {socket}"),
                format!("{start}; journalctl -u berth -n 50 says why it ended"),
            ));
        }
        Answer::Stuck => {
            let (who, fix) = match daemon.process {
                Some((pid, 'T' | 't')) => (format!("process {pid} is stopped (state T)"), format!("kill -CONT {pid}")),
                Some((pid, 'D')) => (
                    format!("process {pid} waits for a disk (state D)"),
                    format!("cat /proc/{pid}/stack; dmesg | tail"),
                ),
                Some((pid, state)) => (
                    format!("process {pid} has state {state}"),
                    format!("kill -9 {pid}; it is started again, and pods live on"),
                ),
                None => ("whoever holds it is not to be seen".to_owned(), "systemctl restart berth".to_owned()),
            };
            found.push(DAEMON_STUCK.found(format!("{socket} takes connections, and nothing answers: {who}"), fix));
        }
    }
}

pub(super) fn leftovers(facts: &Facts, found: &mut Vec<Finding>) {
    let left = &facts.leftovers;
    if left.is_empty() {
        return;
    }
    let named = left[..left.len().min(NAMED)].join(", ");
    let more = left.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let restart =
        if facts.daemon.flags.is_empty() { "systemctl restart berth" } else { "start the daemon of this root anew" };
    let what = format!("of pods that the daemon does not know: {named}{more}");
    found.push(LEFTOVER.found(what, format!("{restart}: it removes them, and pods live on")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::{DiagnoseResponse, NodeCondition};

    fn ids(facts: &Facts) -> Vec<&'static str> {
        let mut found = Vec::new();
        daemon(facts, &mut found);
        found.iter().map(|f| f.id).collect()
    }

    fn up() -> Facts {
        Facts { root: true, daemon: Daemon { answer: Answer::Up, ..Daemon::default() }, ..Facts::default() }
    }

    #[test]
    fn a_sound_daemon_gives_nothing() {
        let mut facts = up();
        facts.daemon.sockets = vec![("/run/berth/berth.sock".into(), 0, 0o600)];
        facts.daemon.told = Some(DiagnoseResponse { monitors: [(1, 3)].into(), ..Default::default() });
        assert_eq!(ids(&facts), [""; 0]);
    }

    #[test]
    fn each_trouble_is_told() {
        let mut facts = Facts::default();
        assert_eq!(ids(&facts), ["not-root", "daemon-down"]);
        facts.daemon.answer = Answer::Forbidden;
        assert_eq!(ids(&facts), ["not-root"]);
        facts = up();
        facts.daemon.problem = Some("not now".into());
        assert_eq!(ids(&facts), ["condition"]);
        facts = up();
        facts.daemon.answer = Answer::Stuck;
        facts.daemon.process = Some((7, 'T'));
        let mut found = Vec::new();
        daemon(&facts, &mut found);
        assert_eq!((found[0].id, found[0].fix.as_str()), ("daemon-stuck", "kill -CONT 7"));
        facts = up();
        facts.daemon.sockets = vec![("/s".into(), 0, 0o666), ("/t".into(), 5, 0o600)];
        facts.daemon.old_monitors = 2;
        let bad = NodeCondition { kind: "AppArmorReady".into(), ok: false, ..Default::default() };
        let network = NodeCondition { kind: "NetworkReady".into(), ok: false, ..Default::default() };
        facts.daemon.told = Some(DiagnoseResponse {
            conditions: vec![bad, network],
            monitors: [(0, 1), (1, 1)].into(),
            ..Default::default()
        });
        assert_eq!(ids(&facts), ["socket-open", "socket-open", "condition", "monitor-silent", "monitor-old"]);
    }

    #[test]
    fn many_leftovers_are_counted() {
        let facts = Facts { leftovers: (0..9).map(|n| format!("/x/{n}")).collect(), ..up() };
        let mut found = Vec::new();
        leftovers(&facts, &mut found);
        assert!(found[0].what.ends_with("/x/4 and 4 more"), "{}", found[0].what);
    }
}
