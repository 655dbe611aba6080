//! Several RuntimeConfigs to one: by priority (higher first), then by name. Scalars: the first that is set wins. Lists
//! merge by their entries' keys. Every field keeps the name of the document it came from. Which fields there are, says `fields.rs`.
//!
//! Two of equal priority that contradict each other: on a node without a cluster an error; in a cluster the field keeps what was
//! last applied, and both are told ([`merge_keeping`]).
use crate::fields::{Keyed, all_fields};
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
/// default where there is none; of a list's entries with one key, that of the first name counts. The order of `documents` means
/// nothing. Errors: two documents of one name.
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
        if self.by_field.contains_key(field) {
            let same = slot.as_ref() == Some(value);
            let Some(keep) = self.keep.as_mut() else { return self.shadowed(field, same) };
            let Some((_, by)) = self.by_field.get(field).filter(|(p, _)| *p == priority(self.document)) else {
                return Ok(());
            };
            if same && !keep.conflicts.contains_key(field) {
                return Ok(());
            }
            let names = keep.conflicts.entry(field.to_owned()).or_insert_with(|| BTreeSet::from([by.clone()]));
            names.insert(self.document.metadata.name.clone());
            *slot = place(&mut keep.last.spec.clone()).clone();
            match keep.last.sources.get(field).filter(|_| slot.is_some()) {
                Some(source) => drop(self.effective.sources.insert(field.to_owned(), source.clone())),
                None => drop(self.effective.sources.remove(field)),
            }
            return Ok(());
        }
        *slot = Some(value.clone());
        self.came_from(field);
        Ok(())
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
            turn in 0usize..6,
            last in proptest::option::of(20u64..23),
        ) {
            let documents: Vec<RuntimeConfig> = made.iter().enumerate().map(|(i, (priority, pids, level, hosts))| {
                let mut spec = RuntimeConfigSpec { priority: Some(*priority), ..Default::default() };
                spec.runtime.pids_limit = *pids;
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
