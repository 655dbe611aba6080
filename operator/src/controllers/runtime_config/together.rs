//! Whether nodes take what several RuntimeConfigs come to: each is good by itself, and may still contradict another one, be too much beside it,
//! or set one half of what is nothing without the other. Pure.
use super::validate::check;
use berth_crds::{Effective, RuntimeConfig, RuntimeConfigSpec, check_merged, merge_keeping};
use std::collections::BTreeSet;

/// What the rules of a node say of the RuntimeConfigs that select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contradiction {
    /// Names of those that break a rule together; each of them takes part.
    pub(super) configs: BTreeSet<String>,
    /// The rule's words, with the names and the remedy.
    pub(super) message: String,
}

/// What is wrong with `spec`, which is what `documents` come to on a node that has `last`.
pub(super) fn contradiction(
    spec: &RuntimeConfigSpec,
    documents: Vec<RuntimeConfig>,
    last: Option<&Effective>,
) -> Option<Contradiction> {
    let whole = broken_rule(spec)?;
    let of = |documents: &[RuntimeConfig]| broken_rule(&merge_keeping(documents, last).ok()?.effective.spec);
    // What breaks one without a document does so whether or not that one is there: it takes no part.
    let (mut few, mut at) = (documents, 0);
    while at < few.len() {
        let one = few.remove(at);
        if of(&few).is_none() {
            few.insert(at, one);
            at += 1;
        }
    }
    // Where there are several, the one that those break.
    let rule = of(&few).unwrap_or(whole);
    let configs: BTreeSet<String> = few.into_iter().map(|document| document.metadata.name).collect();
    let names = configs.iter().cloned().collect::<Vec<_>>().join(", ");
    let message = match configs.len() {
        1 => format!("{rule}: no RuntimeConfig that selects nodes of {names} does so; change it, or whom it selects"),
        _ => format!(
            "{rule}: that is what RuntimeConfigs {names} come to on the nodes that they select together; change one of them, or whom it selects"
        ),
    };
    Some(Contradiction { configs, message })
}

/// A revision's spec goes through the same rules on its node, as a document, and through those of what is merged.
fn broken_rule(spec: &RuntimeConfigSpec) -> Option<String> {
    check("merged", spec).err().or_else(|| check_merged(spec).err().map(|e| e.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Of RuntimeConfigs that are each good by themselves.
    fn found(specs: &[(&str, Value)], last: Option<&Effective>) -> Option<Contradiction> {
        let one = |(name, spec): &(&str, Value)| *check(name, &serde_json::from_value(spec.clone()).unwrap()).unwrap();
        let documents: Vec<_> = specs.iter().map(one).collect();
        let merged = merge_keeping(&documents, last).unwrap();
        contradiction(&merged.effective.spec, documents, last)
    }

    fn gc(fields: Value) -> Value {
        json!({"runtime": {"storage": {"gc": fields}}})
    }

    fn sockets(paths: &[&str]) -> Value {
        json!({"runtime": {"sockets": {"cri": paths}}})
    }

    #[test]
    fn every_rule_about_several_fields_or_a_whole_list_is_asked() {
        let pinned =
            |of: &str| json!({"images": {"pinned": (0..251).map(|n| format!("r.io/{of}:{n}")).collect::<Vec<_>>()}});
        let hosts =
            |of: &str| json!({"registries": (0..129).map(|n| json!({"host": format!("{of}{n}")})).collect::<Vec<_>>()});
        let cases = [
            (gc(json!({"high": 70})), gc(json!({"low": 80})), "spec.runtime.storage.gc.low"),
            (
                json!({"network": {"ipFamilies": ["IPv4"]}}),
                json!({"network": {"subnet6": "fd00:10:85::/64"}}),
                "spec.network.subnet6",
            ),
            (sockets(&["/run/a.sock"]), sockets(&["/var/run/a.sock"]), "spec.runtime.sockets.cri[1]"),
            (sockets(&["/run/a", "/run/b", "/run/c"]), sockets(&["/run/d", "/run/e"]), "spec.runtime.sockets.cri"),
            (pinned("x"), pinned("y"), "spec.images.pinned"),
            (hosts("x"), hosts("y"), "spec.registries"),
        ];
        for (x, y, field) in cases {
            let third = json!({"runtime": {"pidsLimit": 100}});
            let found = found(&[("a", third), ("x", x), ("y", y)], None).unwrap();
            assert_eq!(found.configs, BTreeSet::from(["x".to_owned(), "y".to_owned()]), "{field}");
            assert!(found.message.starts_with(&format!("{field}: ")), "{}", found.message);
            assert!(found.message.contains("RuntimeConfigs x, y come to"), "{}", found.message);
        }
    }

    /// The other half may be another one's: then both are good.
    #[test]
    fn half_a_pair_is_refused_where_nobody_sets_the_other_half() {
        let streaming = |name: &str| json!({"runtime": {"streaming": {name: "/etc/tls"}}});
        let credentials = |name: &str| json!({"credentials": {name: "/etc/providers"}});
        let pairs = [
            (streaming("tlsCertFile"), streaming("tlsKeyFile"), "spec.runtime.streaming.tlsKeyFile"),
            (credentials("providerConfigFile"), credentials("providerBinDir"), "spec.credentials.providerBinDir"),
        ];
        for (one, other, missing) in pairs {
            let beside = json!({"runtime": {"pidsLimit": 100}});
            let half = found(&[("a", beside.clone()), ("x", one.clone())], None).unwrap();
            assert_eq!(half.configs, BTreeSet::from(["x".to_owned()]));
            assert!(half.message.starts_with(&format!("{missing}: must be set together with ")), "{}", half.message);
            assert!(half.message.contains("no RuntimeConfig that selects nodes of x does so"), "{}", half.message);
            assert_eq!(found(&[("x", one), ("y", other)], None), None);
        }
    }

    #[test]
    fn of_several_the_words_are_about_those_that_are_named() {
        let all = [
            ("high", gc(json!({"high": 70}))),
            ("low", gc(json!({"low": 80}))),
            ("x", sockets(&["/run/a"])),
            ("y", sockets(&["/var/run/a"])),
        ];
        let first = found(&all, None).unwrap();
        let gone = |name: &str| all.iter().filter(|(n, _)| *n != name).cloned().collect::<Vec<_>>();
        let pair = |a: &str, b: &str| BTreeSet::from([a.to_owned(), b.to_owned()]);
        assert!(first.configs == pair("x", "y") && first.message.contains("/var/run/a stands twice"), "{first:?}");
        let second = found(&gone("y"), None).unwrap();
        assert!(
            second.configs == pair("high", "low") && second.message.contains("must be below gc.high"),
            "{second:?}"
        );
        assert_eq!(found(&gone("y")[1..], None), None);
    }

    #[test]
    fn a_value_that_was_kept_counts() {
        let last = Effective { spec: serde_json::from_value(gc(json!({"low": 75}))).unwrap(), ..Default::default() };
        let all = [("high", gc(json!({"high": 70}))), ("x", gc(json!({"low": 10}))), ("y", gc(json!({"low": 20})))];
        assert_eq!(found(&all, None), None, "a new node has the default");
        assert_eq!(found(&all, Some(&last)).unwrap().configs.len(), 3, "without x or y the other one decides");
        assert_eq!(found(&all[..2], Some(&last)), None);
    }
}
