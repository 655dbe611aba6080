//! Pods and containers that could not be started, or that end badly again and again.
use super::pulls::is_late;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{CRASH_LOOP, Finding, OOM_KILLED, START_FAILED};
use berth_proto::node::Trouble;
use std::collections::BTreeMap;

/// So many bad ends within the hour are a loop.
const LOOP: usize = 3;

pub(super) fn starts(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(told) = &facts.daemon.told else { return };
    let flags = &facts.daemon.flags;
    let (mut failed, mut ends) = (BTreeMap::<&str, Vec<&Trouble>>::new(), BTreeMap::<&str, Vec<&Trouble>>::new());
    for trouble in told.troubles.iter().filter(|t| is_late(facts, t)) {
        match trouble.kind.as_str() {
            "run" | "create" | "start" => failed.entry(&trouble.object).or_default().push(trouble),
            "exit" => ends.entry(&trouble.object).or_default().push(trouble),
            _ => {}
        }
    }
    for (object, all) in failed {
        let Some(last) = all.last() else { continue };
        let what = format!("{object} ({}, {} times within the hour): {}", last.kind, all.len(), last.message);
        found.push(
            START_FAILED.found(what, format!("correct what the message names; berth{flags} ps -a shows what is there")),
        );
    }
    for (object, all) in ends {
        let name = object.rsplit('/').next().unwrap_or(object);
        let killed = all.iter().filter(|t| t.message.starts_with("OOMKilled")).count();
        if killed > 0 {
            let what = format!("{object}: {killed} times within the hour");
            found.push(
                OOM_KILLED
                    .found(what, format!("raise the container's memory limit; berth{flags} inspect {name} shows it")),
            );
        }
        if let (true, Some(last)) = (all.len() >= LOOP, all.last()) {
            let what = format!("{object} ended {} times within the hour, last with {}", all.len(), last.message);
            found.push(CRASH_LOOP.found(what, format!("berth{flags} logs --tail 20 {name}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::DiagnoseResponse;

    #[test]
    fn failures_loops_and_kills_are_told() {
        let trouble = |kind: &str, object: &str, message: &str| Trouble {
            kind: kind.into(),
            at: 10_000_000_000_000,
            object: object.into(),
            error: "Internal".into(),
            message: message.into(),
        };
        let mut troubles = vec![
            trouble("start", "default/web/app", "exec: /bin/nope: No such file or directory"),
            trouble("exit", "default/once/app", "Error (exit code 1)"),
            trouble("exit", "default/big/app", "OOMKilled (exit code 137)"),
        ];
        troubles.extend((0..3).map(|_| trouble("exit", "default/loop/app", "Error (exit code 3)")));
        let mut facts = Facts { now: 10_001, ..Facts::default() };
        facts.daemon.told = Some(DiagnoseResponse { troubles, ..Default::default() });
        let mut found = Vec::new();
        starts(&facts, &mut found);
        assert_eq!(found.iter().map(|f| f.id).collect::<Vec<_>>(), ["start-failed", "oom-killed", "crash-loop"]);
        assert!(found[0].what.contains("/bin/nope") && found[2].what.contains("3 times"));
        facts.now += 7200;
        found.clear();
        starts(&facts, &mut found);
        assert!(found.is_empty());
    }
}
