//! Which names a registry's settings configure: its own and its mirrors' URLs.
use berth_settings::RegistryHost;

/// Them, as they stand in references and documents.
pub(super) fn names(registry: &RegistryHost) -> Vec<String> {
    let mirrors = registry.mirrors.iter().map(|m| m.url.clone());
    std::iter::once(registry.host.clone()).chain(mirrors).collect()
}
