//! Several RuntimeConfigs to one: by priority (higher first), then by name. Scalars: the first that is set wins. Lists
//! merge by their entries' keys. Every field keeps the name of the document it came from. Which fields there are, says `fields.rs`.
use crate::fields::{Keyed, all_fields};
use crate::runtime_config::{RuntimeConfig, RuntimeConfigSpec};
use berth_model::{Error, Result};
use std::collections::BTreeMap;

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
    let mut sorted: Vec<&RuntimeConfig> = documents.iter().collect();
    sorted.sort_by_key(|d| (std::cmp::Reverse(priority(d)), d.metadata.name.clone()));
    let mut effective = Effective::default();
    let mut by_field = BTreeMap::new();
    for (i, document) in sorted.iter().enumerate() {
        if i > 0 && sorted[i - 1].metadata.name == document.metadata.name {
            return Err(Error::invalid(
                "metadata.name",
                format!("RuntimeConfig {} stands twice", document.metadata.name),
            ));
        }
        let mut layer = Layer { document, by_field: &mut by_field, effective: &mut effective };
        all_fields().try_for_each(|field| field.merge(&mut layer))?;
    }
    Ok(effective)
}

fn priority(document: &RuntimeConfig) -> u16 {
    document.spec.priority.unwrap_or(DEFAULT_PRIORITY)
}

/// One document on its way into the effective configuration.
pub(crate) struct Layer<'a> {
    pub(crate) document: &'a RuntimeConfig,
    /// Priority and name of the document that set a field.
    by_field: &'a mut BTreeMap<String, (u16, String)>,
    effective: &'a mut Effective,
}

impl Layer<'_> {
    /// A value: the first document that sets it wins.
    pub(crate) fn scalar<T: Clone + PartialEq>(
        &mut self,
        field: &str,
        value: &Option<T>,
        place: impl Fn(&mut RuntimeConfigSpec) -> &mut Option<T>,
    ) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let slot = place(&mut self.effective.spec);
        if let Some(set) = slot {
            let same = set == value;
            return self.shadowed(field, same);
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
    fn equals_that_disagree_are_both_named() {
        let one = config("a", "{runtime: {pidsLimit: 50}}");
        let two = config("b", "{runtime: {pidsLimit: 60}}");
        let message = merge(&[one.clone(), two]).unwrap_err().to_string();
        assert!(message.contains("spec.runtime.pidsLimit") && message.contains("a and b"), "{message}");
        assert!(merge(&[one.clone(), config("b", "{runtime: {pidsLimit: 50}}")]).is_ok(), "equal values do not clash");
        assert!(merge(&[one.clone(), one]).is_err(), "one name twice");
    }
}
