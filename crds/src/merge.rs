//! Several RuntimeConfigs to one: by priority (higher first), then by name. Scalars: the first that is set wins. Registries
//! merge by host. Every field keeps the title of the document it came from.
use crate::runtime_config::{RuntimeConfig, RuntimeConfigSpec};
use berth_model::{Error, Result};
use std::collections::BTreeMap;

const DEFAULT_PRIORITY: u16 = 100;

/// One effective configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// Its values.
    pub spec: RuntimeConfigSpec,
    /// Field path to the document that set it.
    pub sources: BTreeMap<String, String>,
}

/// Merges. Errors: two documents of one name, or two of equal priority that set one scalar differently: on a node nobody else
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
        Layer { document, by_field: &mut by_field, effective: &mut effective }.apply()?;
    }
    Ok(effective)
}

fn priority(document: &RuntimeConfig) -> u16 {
    document.spec.priority.unwrap_or(DEFAULT_PRIORITY)
}

/// One document on its way into the effective configuration.
struct Layer<'a> {
    document: &'a RuntimeConfig,
    /// Priority and name of the document that set a field.
    by_field: &'a mut BTreeMap<String, (u16, String)>,
    effective: &'a mut Effective,
}

impl Layer<'_> {
    fn apply(mut self) -> Result<()> {
        // Destructured without `..`: a new field does not compile until it is merged.
        let RuntimeConfigSpec { state: _, priority: _, runtime, registries, network, metrics } = &self.document.spec;
        let crate::Runtime { log_level, pids_limit, cgroup_manager, limits, streaming } = runtime;
        let crate::Streaming { bind, token_ttl, tls_cert_file, tls_key_file } = streaming;
        let crate::Limits {
            max_manifest_bytes,
            max_index_entries,
            max_layers,
            max_uncompressed_per_layer,
            max_uncompressed_per_image,
            max_compression_ratio,
            max_tar_entries,
        } = limits;
        let crate::Network { mode, subnet, mtu } = network;
        let crate::Metrics { address } = metrics;
        self.scalar("spec.runtime.logLevel", log_level, |s| &mut s.runtime.log_level)?;
        self.scalar("spec.runtime.pidsLimit", pids_limit, |s| &mut s.runtime.pids_limit)?;
        self.scalar("spec.runtime.cgroupManager", cgroup_manager, |s| &mut s.runtime.cgroup_manager)?;
        let limit = "spec.runtime.limits";
        self.scalar(&format!("{limit}.maxManifestBytes"), max_manifest_bytes, |s| {
            &mut s.runtime.limits.max_manifest_bytes
        })?;
        self.scalar(&format!("{limit}.maxIndexEntries"), max_index_entries, |s| {
            &mut s.runtime.limits.max_index_entries
        })?;
        self.scalar(&format!("{limit}.maxLayers"), max_layers, |s| &mut s.runtime.limits.max_layers)?;
        self.scalar(&format!("{limit}.maxUncompressedPerLayer"), max_uncompressed_per_layer, |s| {
            &mut s.runtime.limits.max_uncompressed_per_layer
        })?;
        self.scalar(&format!("{limit}.maxUncompressedPerImage"), max_uncompressed_per_image, |s| {
            &mut s.runtime.limits.max_uncompressed_per_image
        })?;
        self.scalar(&format!("{limit}.maxCompressionRatio"), max_compression_ratio, |s| {
            &mut s.runtime.limits.max_compression_ratio
        })?;
        self.scalar(&format!("{limit}.maxTarEntries"), max_tar_entries, |s| &mut s.runtime.limits.max_tar_entries)?;
        let at = "spec.runtime.streaming";
        self.scalar(&format!("{at}.bind"), bind, |s| &mut s.runtime.streaming.bind)?;
        self.scalar(&format!("{at}.tokenTTL"), token_ttl, |s| &mut s.runtime.streaming.token_ttl)?;
        self.scalar(&format!("{at}.tlsCertFile"), tls_cert_file, |s| &mut s.runtime.streaming.tls_cert_file)?;
        self.scalar(&format!("{at}.tlsKeyFile"), tls_key_file, |s| &mut s.runtime.streaming.tls_key_file)?;
        self.scalar("spec.network.mode", mode, |s| &mut s.network.mode)?;
        self.scalar("spec.network.subnet", subnet, |s| &mut s.network.subnet)?;
        self.scalar("spec.network.mtu", mtu, |s| &mut s.network.mtu)?;
        self.scalar("spec.metrics.address", address, |s| &mut s.metrics.address)?;
        for host in registries {
            if !self.effective.spec.registries.iter().any(|h| h.host == host.host) {
                self.effective.spec.registries.push(host.clone());
                self.effective
                    .sources
                    .insert(format!("spec.registries[{}]", host.host), self.document.metadata.name.clone());
            }
        }
        Ok(())
    }

    fn scalar<T: Clone + PartialEq>(
        &mut self,
        field: &str,
        value: &Option<T>,
        place: impl Fn(&mut RuntimeConfigSpec) -> &mut Option<T>,
    ) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let slot = place(&mut self.effective.spec);
        let (priority, name) = (priority(self.document), &self.document.metadata.name);
        match (slot.as_ref(), self.by_field.get(field)) {
            (Some(set), Some((other, by))) if *other == priority && set != value => {
                let problem = format!(
                    "RuntimeConfig {by} and {name} have equal priority {priority} and set it differently; change one's priority"
                );
                return Err(Error::invalid(field, problem));
            }
            (Some(_), _) => {}
            (None, _) => {
                *slot = Some(value.clone());
                self.by_field.insert(field.to_owned(), (priority, name.clone()));
                self.effective.sources.insert(field.to_owned(), name.clone());
            }
        }
        Ok(())
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
