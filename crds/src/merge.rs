//! Several RuntimeConfigs to one: by priority (higher first), then by name. Scalars: the first that is set wins. Lists
//! merge by their entries' keys. Every field keeps the name of the document it came from. Which fields there are, says `fields.rs`.
//!
//! Two of equal priority that contradict each other: on a node without a cluster an error; in a cluster the field keeps what was
//! last applied, and both are told ([`merge_keeping`]). Of a rollout nothing was ever applied: the careful one counts.
use crate::fields::{Careful, Keyed, all_fields};
use crate::kubelet::KubeletConfig;
use crate::runtime_config::{RuntimeConfig, RuntimeConfigSpec};
use berth_model::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

const DEFAULT_PRIORITY: u16 = 100;

/// One effective configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// Its values.
    pub spec: RuntimeConfigSpec,
    /// Field path, of lists with the entry's key (`spec.registries[HOST]`), to the name of the document that set it.
    pub sources: BTreeMap<String, String>,
}

/// Merges. Errors: two documents of one name, or two of equal priority that set one field differently: on a node nobody else
/// can decide, so both are named and the former settings stay.
pub fn merge(documents: &[RuntimeConfig]) -> Result<Effective> {
    let mut effective = Effective::default();
    each_layer(documents, &mut effective, &mut None)?;
    Ok(effective)
}

/// A configuration of which some fields are as they were, because documents contradict each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Its values.
    pub effective: Effective,
    /// Path of each field that documents of equal priority set differently, to the names of all of these.
    pub conflicts: BTreeMap<String, BTreeSet<String>>,
}

/// Merges, whatever documents say: a scalar that two of equal priority set differently keeps the value of `last`, or is left to its
/// default where there is none; of a rollout's pause and limits the most careful one counts, whatever was last; of a list's entries with
/// one key, that of the first name. The order of `documents` means nothing. Errors: two documents of one name.
pub fn merge_keeping(documents: &[RuntimeConfig], last: Option<&Effective>) -> Result<Merged> {
    let none = Effective::default();
    let mut merged = Merged::default();
    let keep = Keep { last: last.unwrap_or(&none), conflicts: BTreeMap::new() };
    let mut keep = Some(keep);
    each_layer(documents, &mut merged.effective, &mut keep)?;
    merged.conflicts = keep.map(|keep| keep.conflicts).unwrap_or_default();
    Ok(merged)
}

/// What to do where documents contradict each other.
struct Keep<'a> {
    last: &'a Effective,
    conflicts: BTreeMap<String, BTreeSet<String>>,
}

fn each_layer(documents: &[RuntimeConfig], effective: &mut Effective, keep: &mut Option<Keep<'_>>) -> Result<()> {
    let mut sorted: Vec<&RuntimeConfig> = documents.iter().collect();
    sorted.sort_by_key(|d| (std::cmp::Reverse(priority(d)), d.metadata.name.clone()));
    let mut by_field = BTreeMap::new();
    for (i, document) in sorted.iter().enumerate() {
        // Names are unique among all, not only among neighbours of one priority.
        if sorted[..i].iter().any(|other| other.metadata.name == document.metadata.name) {
            return Err(Error::invalid(
                "metadata.name",
                format!("RuntimeConfig {} stands twice", document.metadata.name),
            ));
        }
        let mut layer = Layer { document, by_field: &mut by_field, effective, keep };
        all_fields().try_for_each(|field| field.merge(&mut layer))?;
    }
    Ok(())
}

fn priority(document: &RuntimeConfig) -> u16 {
    document.spec.priority.unwrap_or(DEFAULT_PRIORITY)
}

/// One document on its way into the effective configuration.
pub(crate) struct Layer<'a, 'k> {
    pub(crate) document: &'a RuntimeConfig,
    /// Priority and name of the document that set a field.
    by_field: &'a mut BTreeMap<String, (u16, String)>,
    effective: &'a mut Effective,
    keep: &'a mut Option<Keep<'k>>,
}

impl Layer<'_, '_> {
    /// A value: the first document that sets it wins.
    pub(crate) fn scalar<T: Clone + PartialEq>(
        &mut self,
        field: &str,
        value: &Option<T>,
        place: impl Fn(&mut RuntimeConfigSpec) -> &mut Option<T>,
    ) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let slot = place(&mut self.effective.spec);
        // A kept field may be unset, and is decided all the same.
        if !self.by_field.contains_key(field) {
            *slot = Some(value.clone());
            self.came_from(field);
            return Ok(());
        }
        let same = slot.as_ref() == Some(value);
        if !self.contradicts(field, same)? {
            return Ok(());
        }
        let none = Effective::default();
        let last = self.keep.as_ref().map_or(&none, |keep| keep.last);
        let slot = place(&mut self.effective.spec);
        *slot = place(&mut last.spec.clone()).clone();
        match last.sources.get(field).filter(|_| slot.is_some()) {
            Some(source) => drop(self.effective.sources.insert(field.to_owned(), source.clone())),
            None => drop(self.effective.sources.remove(field)),
        }
        Ok(())
    }

    /// A value of a rollout, which no revision keeps, so that nothing was last applied: where equals contradict each other, the most
    /// careful of their values counts, or the default where none of them is.
    pub(crate) fn careful<T: Clone + PartialEq + Careful>(
        &mut self,
        field: &str,
        value: &Option<T>,
        place: impl Fn(&mut RuntimeConfigSpec) -> &mut Option<T>,
    ) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let before = place(&mut self.effective.spec).clone();
        if !self.by_field.contains_key(field) {
            return self.scalar(field, &Some(value.clone()), place);
        }
        if !self.contradicts(field, before.as_ref() == Some(value))? {
            return Ok(());
        }
        // Once none of them was, none is: a third one decides nothing between the two.
        let chosen = before.as_ref().and_then(|before| before.careful(value));
        if chosen != before {
            match chosen {
                Some(_) => {
                    let name = self.document.metadata.name.clone();
                    drop(self.effective.sources.insert(field.to_owned(), name));
                }
                None => drop(self.effective.sources.remove(field)),
            }
            *place(&mut self.effective.spec) = chosen;
        }
        Ok(())
    }

    /// Whether equals set a field differently that is decided already; their names are noted. Errors: as [`Self::shadowed`], where
    /// nobody asked to go on.
    fn contradicts(&mut self, field: &str, same: bool) -> Result<bool> {
        let Some(keep) = self.keep.as_mut() else { return self.shadowed(field, same).map(|()| false) };
        let Some((_, by)) = self.by_field.get(field).filter(|(p, _)| *p == priority(self.document)) else {
            return Ok(false);
        };
        if same && !keep.conflicts.contains_key(field) {
            return Ok(false);
        }
        let names = keep.conflicts.entry(field.to_owned()).or_insert_with(|| BTreeSet::from([by.clone()]));
        names.insert(self.document.metadata.name.clone());
        Ok(true)
    }

    /// A list of entries with keys: of each key, the first document's entry wins.
    pub(crate) fn list<T: Clone + PartialEq + Keyed>(
        &mut self,
        field: &str,
        values: &[T],
        place: impl Fn(&mut RuntimeConfigSpec) -> &mut Vec<T>,
    ) -> Result<()> {
        for value in values {
            let entry = format!("{field}[{}]", value.key());
            let list = place(&mut self.effective.spec);
            match list.iter().find(|other| other.key() == value.key()) {
                // Among equals the first name decides: entries of other keys would go with it otherwise.
                Some(_) if self.keep.is_some() => {}
                Some(set) => {
                    let same = set == value;
                    self.shadowed(&entry, same)?;
                }
                None => {
                    list.push(value.clone());
                    self.came_from(&entry);
                }
            }
        }
        Ok(())
    }

    /// Fields by name: each is a value of its own.
    pub(crate) fn map(
        &mut self,
        field: &str,
        values: &KubeletConfig,
        place: impl Fn(&mut RuntimeConfigSpec) -> &mut KubeletConfig,
    ) -> Result<()> {
        for (name, value) in values.entries() {
            self.scalar(&format!("{field}[{name}]"), value, |spec| place(spec).slot(name))?;
        }
        Ok(())
    }

    fn came_from(&mut self, field: &str) {
        let name = &self.document.metadata.name;
        self.by_field.insert(field.to_owned(), (priority(self.document), name.clone()));
        self.effective.sources.insert(field.to_owned(), name.clone());
    }

    /// A document of higher priority may overrule; of two with equal priority neither may.
    fn shadowed(&self, field: &str, same: bool) -> Result<()> {
        let (priority, name) = (priority(self.document), &self.document.metadata.name);
        match self.by_field.get(field) {
            Some((other, by)) if *other == priority && !same => {
                let problem = format!(
                    "RuntimeConfig {by} and {name} have equal priority {priority} and set it differently; change one's priority"
                );
                Err(Error::invalid(field, problem))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, parse_documents};

    fn config(name: &str, spec: &str) -> RuntimeConfig {
        let text =
            format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: {name}}}\nspec: {spec}\n");
        let Some(Document::RuntimeConfig(document)) = parse_documents(&text).unwrap().pop() else {
            panic!("one config")
        };
        *document
    }

    #[test]
    fn the_higher_priority_wins_whatever_the_order() {
        let low = config("a", "{priority: 10, runtime: {pidsLimit: 50, logLevel: Debug}}");
        let high = config("b", "{priority: 20, runtime: {pidsLimit: 60}}");
        for pair in [[low.clone(), high.clone()], [high, low]] {
            let merged = merge(&pair).unwrap();
            assert_eq!(merged.spec.runtime.pids_limit, Some(60));
            assert_eq!(merged.sources["spec.runtime.pidsLimit"], "b");
            assert_eq!(merged.sources["spec.runtime.logLevel"], "a");
        }
    }

    #[test]
    fn what_equals_disagree_on_stays_as_it_was() {
        let all = [
            config("a", "{runtime: {pidsLimit: 50, logLevel: Debug}, registries: [{host: x, plainHttp: true}]}"),
            config("b", "{runtime: {pidsLimit: 60, logLevel: Debug}, registries: [{host: x}, {host: y}]}"),
            config("c", "{runtime: {pidsLimit: 50}}"),
            config("low", "{priority: 1, runtime: {pidsLimit: 70, cgroupManager: Systemd}}"),
        ];
        let new = merge_keeping(&all, None).unwrap();
        assert_eq!(
            new.effective.spec.runtime.pids_limit, None,
            "a new node has the default, not what a lower one says"
        );
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(new.conflicts, BTreeMap::from([("spec.runtime.pidsLimit".to_owned(), BTreeSet::from(names))]));
        assert_eq!(new.effective.sources["spec.runtime.cgroupManager"], "low");
        assert!(new.effective.spec.registries[0].plain_http, "of a list's entries that of the first name");

        let last = merge_keeping(&all[..1], None).unwrap().effective;
        let kept = merge_keeping(&all, Some(&last)).unwrap();
        assert_eq!(kept.effective.spec.runtime.pids_limit, Some(50));
        assert_eq!(kept.effective.sources["spec.runtime.pidsLimit"], "a");
        assert_eq!(kept.conflicts, new.conflicts);
    }

    #[test]
    fn of_rollouts_that_equals_disagree_on_the_careful_one_counts() {
        let rollout = |name: &str, fields: &str| config(name, &format!("{{rollout: {fields}}}"));
        let last = merge_keeping(&[rollout("z", "{paused: false, maxFailures: 9, nodeTimeout: 1m}")], None).unwrap();
        let merged = |all: &[RuntimeConfig]| merge_keeping(all, Some(&last.effective)).unwrap();
        for (a, b) in [("{paused: false}", "{paused: true}"), ("{paused: true}", "{paused: false}")] {
            let found = merged(&[rollout("a", a), rollout("b", b)]);
            assert_eq!(found.effective.spec.rollout.paused, Some(true), "a: {a}, b: {b}");
            assert_eq!(found.conflicts["spec.rollout.paused"].len(), 2);
            let by = if a.contains("true") { "a" } else { "b" };
            assert_eq!(found.effective.sources["spec.rollout.paused"], by);
        }
        let high = config("high", "{priority: 200, rollout: {paused: false}}");
        let found = merged(&[high, rollout("a", "{paused: true}")]);
        assert_eq!(found.effective.spec.rollout.paused, Some(false), "the higher priority wins");

        let many = [
            rollout("a", "{maxInFlight: 3, maxFailures: 1, nodeTimeout: 5m}"),
            rollout("b", "{maxInFlight: 2, maxFailures: 3%, nodeTimeout: 9m}"),
            rollout("c", "{maxInFlight: 4, maxFailures: 2, nodeTimeout: 9m}"),
        ];
        let found = merged(&many);
        let rollout = found.effective.spec.rollout;
        assert_eq!(rollout.max_in_flight, Some(crate::IntOrPercent::Int(2)));
        assert_eq!(rollout.max_failures, None, "a number and a part cannot be compared");
        assert_eq!(rollout.node_timeout, last.effective.spec.rollout.node_timeout, "as any field");
        assert_eq!(found.conflicts.len(), 3);
        assert!(merge(&many).unwrap_err().message().contains("spec.rollout.maxInFlight"), "a node alone refuses");
    }

    #[test]
    fn fields_of_the_kubelet_are_merged_one_by_one() {
        let all = [
            config("a", "{kubelet: {config: {maxPods: 70, eventBurst: 5}}}"),
            config("b", "{kubelet: {config: {maxPods: 80}}}"),
            config("base", "{priority: 1, kubelet: {config: {maxPods: 60, eventBurst: 9, podsPerCore: 4}}}"),
        ];
        let merged = merge_keeping(&all, None).unwrap();
        let fields = merged.effective.spec.kubelet.config.fields();
        assert_eq!(serde_json::Value::from(fields), serde_json::json!({"eventBurst": 5, "podsPerCore": 4}));
        assert_eq!(merged.effective.sources["spec.kubelet.config[podsPerCore]"], "base");
        assert_eq!(merged.conflicts.keys().collect::<Vec<_>>(), ["spec.kubelet.config[maxPods]"]);
        let last = merge_keeping(&all[..1], None).unwrap().effective;
        let kept = merge_keeping(&all, Some(&last)).unwrap().effective;
        assert_eq!(kept.spec.kubelet.config.fields()["maxPods"], 70, "what was applied last");
        assert!(merge(&all).unwrap_err().message().contains("spec.kubelet.config[maxPods]"));
    }

    proptest::proptest! {
        /// Whatever the order in which the API server gives documents, nodes get the same, and a second merge changes nothing.
        #[test]
        fn the_order_of_documents_means_nothing(
            made in proptest::collection::vec((0u16..3, proptest::option::of(20u64..23), proptest::option::of(0usize..2), 0usize..4), 1..6),
            shares in proptest::collection::vec((proptest::option::of(0u8..6), proptest::option::of(proptest::bool::ANY)), 6),
            turn in 0usize..6,
            last in proptest::option::of(20u64..23),
        ) {
            let documents: Vec<RuntimeConfig> = made.iter().enumerate().map(|(i, (priority, pids, level, hosts))| {
                let mut spec = RuntimeConfigSpec { priority: Some(*priority), ..Default::default() };
                spec.runtime.pids_limit = *pids;
                let (share, paused) = shares[i];
                spec.rollout.paused = paused;
                spec.rollout.max_in_flight = share.map(|n| match n {
                    0..4 => crate::IntOrPercent::Int(u32::from(n) + 1),
                    _ => crate::IntOrPercent::Percent(n),
                });
                spec.runtime.log_level = level.map(|l| [crate::LogLevel::Info, crate::LogLevel::Debug][l]);
                spec.registries = (0..*hosts).map(|h| crate::RegistryHost {
                    host: format!("h{h}"), plain_http: i % 2 == 0, ..Default::default()
                }).collect();
                RuntimeConfig {
                    api_version: crate::API_VERSION.to_owned(), kind: "RuntimeConfig".to_owned(),
                    metadata: crate::ObjectMeta { name: format!("n{i}"), ..Default::default() }, spec,
                }
            }).collect();
            let mut before = Effective::default();
            before.spec.runtime.pids_limit = last;
            let one = merge_keeping(&documents, Some(&before)).unwrap();
            let mut turned = documents.clone();
            turned.rotate_left(turn % documents.len());
            turned.reverse();
            proptest::prop_assert_eq!(&one, &merge_keeping(&turned, Some(&before)).unwrap());
            // Once applied, it is what was last applied.
            proptest::prop_assert_eq!(&one.effective.spec, &merge_keeping(&documents, Some(&one.effective)).unwrap().effective.spec);
            // Where nobody contradicts, the node alone says the same.
            if let Ok(alone) = merge(&documents) {
                proptest::prop_assert_eq!(&alone, &one.effective);
                proptest::prop_assert!(one.conflicts.is_empty());
            }
        }
    }

    #[test]
    fn equals_that_disagree_are_both_named() {
        let one = config("a", "{runtime: {pidsLimit: 50}}");
        let two = config("b", "{runtime: {pidsLimit: 60}}");
        let message = merge(&[one.clone(), two]).unwrap_err().to_string();
        assert!(message.contains("spec.runtime.pidsLimit") && message.contains("a and b"), "{message}");
        assert!(merge(&[one.clone(), config("b", "{runtime: {pidsLimit: 50}}")]).is_ok(), "equal values do not clash");
        assert!(merge(&[one.clone(), one]).is_err(), "one name twice");
    }
}
