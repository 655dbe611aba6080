//! The kubelet's CredentialProviderConfig (`kubelet.config.k8s.io/v1`), which a node that comes from another runtime has already.
//!
//! Owns: reading it. Must not: run a provider. Environment values may be secrets: errors tell places, never values.
//! Source: k8s.io/kubelet/config/v1, CredentialProviderConfig.
use berth_model::{Error, Result};
use serde::Deserialize;

/// Longest file.
pub const MAX_PROVIDER_CONFIG: usize = 1 << 20;
/// Most providers of one file, and most entries of each of their lists.
const MAX_ENTRIES: usize = 256;

/// One provider, as it stands.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialProvider {
    /// Name of its program in the directory of programs.
    pub name: String,
    /// Which images it is asked for.
    #[serde(default)]
    pub match_images: Vec<String>,
    /// How long an answer without a duration of its own is kept, as Go writes durations.
    #[serde(default)]
    pub default_cache_duration: Option<String>,
    /// Version of the protocol.
    #[serde(default)]
    pub api_version: String,
    /// Arguments.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment.
    #[serde(default)]
    pub env: Option<Vec<ProviderEnv>>,
    #[serde(default)]
    token_attributes: Option<serde_json::Value>,
}

/// One variable.
#[derive(Clone, Deserialize)]
pub struct ProviderEnv {
    /// Its name.
    pub name: String,
    /// Its value, which may be a secret.
    #[serde(default)]
    pub value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    providers: Vec<CredentialProvider>,
}

/// Reads a file. Errors: `InvalidArgument` naming the field and the remedy.
pub fn parse_provider_config(text: &str) -> Result<Vec<CredentialProvider>> {
    let bad = |field: &str, why: &str| Error::invalid(format!("CredentialProviderConfig {field}"), why);
    if text.len() > MAX_PROVIDER_CONFIG || crate::document::looks_too_deep(text) {
        return Err(bad("", &format!("is longer than {MAX_PROVIDER_CONFIG} bytes or nested too deep")));
    }
    let config: Config = serde_yaml::from_str(text).map_err(|e| match e.location() {
        // The parser's own words may quote a value.
        Some(at) => bad("", &format!("is not of this kind: line {}, column {}", at.line(), at.column())),
        None => bad("", "is not YAML of this kind"),
    })?;
    if config.kind != "CredentialProviderConfig" || config.api_version != "kubelet.config.k8s.io/v1" {
        return Err(bad("apiVersion and kind", "must be kubelet.config.k8s.io/v1 and CredentialProviderConfig"));
    }
    if config.providers.len() > MAX_ENTRIES {
        return Err(bad("providers", &format!("has more than {MAX_ENTRIES} entries")));
    }
    for (i, provider) in config.providers.iter().enumerate() {
        check(&format!("providers[{i}]"), provider)?;
        if config.providers[..i].iter().any(|other| other.name == provider.name) {
            return Err(bad(&format!("providers[{i}].name"), "stands twice"));
        }
    }
    Ok(config.providers)
}

fn check(at: &str, provider: &CredentialProvider) -> Result<()> {
    let bad = |field: &str, why: &str| Err(Error::invalid(format!("CredentialProviderConfig {at}.{field}"), why));
    let name = &provider.name;
    if name.is_empty() || name.contains(['/', ' ', '\0']) || name == "." || name == ".." {
        return bad("name", "must be the name of a program in the directory of programs");
    }
    if provider.match_images.is_empty() || provider.match_images.len() > MAX_ENTRIES {
        return bad("matchImages", &format!("must have 1 to {MAX_ENTRIES} entries"));
    }
    if provider.api_version != "credentialprovider.kubelet.k8s.io/v1" {
        return bad("apiVersion", "must be credentialprovider.kubelet.k8s.io/v1");
    }
    if provider.token_attributes.is_some() {
        return bad(
            "tokenAttributes",
            "needs the service account's token, which only the kubelet has; leave this provider to it",
        );
    }
    let lists = [provider.args.as_ref().map_or(0, Vec::len), provider.env.as_ref().map_or(0, Vec::len)];
    if lists.into_iter().any(|n| n > MAX_ENTRIES) {
        return bad("args and env", &format!("may have {MAX_ENTRIES} entries at most"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: ecr\n  matchImages: ['*.dkr.ecr.*.amazonaws.com']\n  \
        defaultCacheDuration: 12h\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get]\n  env: [{name: A, value: sesame}]\n";

    #[test]
    fn the_kubelets_file_is_read() {
        let found = parse_provider_config(GOOD).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].default_cache_duration.as_deref()), ("ecr", Some("12h")));
        let cases = [
            ("name: ecr", "name: ../ecr", "name"),
            ("kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1alpha1", "apiVersion"),
            (
                "credentialprovider.kubelet.k8s.io/v1",
                "credentialprovider.kubelet.k8s.io/v1beta1",
                "providers[0].apiVersion",
            ),
            ("['*.dkr.ecr.*.amazonaws.com']", "[]", "matchImages"),
            ("args: [get]", "tokenAttributes: {a: b}", "tokenAttributes"),
            ("env: [{name: A, value: sesame}]", "env: sesame", "line"),
        ];
        for (from, to, field) in cases {
            let e = parse_provider_config(&GOOD.replace(from, to)).err().unwrap();
            assert!(e.message().contains(field) && !e.message().contains("sesame"), "{to}: {e}");
        }
        assert!(parse_provider_config("").is_err());
    }
}
