//! Parses an image's configuration (OCI image spec, `config.md`): what containers need, and the digests of the layers.
//!
//! Owns: its limits. Must not: fill in what the image does not say.
use crate::config::Limits;
use crate::refused;
use berth_model::{Digest, ImageConfig, Labels, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A parsed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedConfig {
    /// What shapes containers.
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// When it was built, verbatim.
    pub created: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Config>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// Every field may be absent or null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    labels: Option<Labels>,
}

/// Parses a configuration. `layers` is the number of layers in the manifest. Errors: `FailedPrecondition` for what is no configuration,
/// is of another platform, or does not fit the manifest.
pub fn parse(bytes: &[u8], layers: usize, limits: &Limits) -> Result<ParsedConfig> {
    let refuse = |problem: String| Err(refused("image configuration", problem));
    let document: Document = match serde_json::from_slice(bytes) {
        Ok(document) => document,
        Err(e) => return refuse(format!("does not parse: {e}")),
    };
    let here = (std::env::consts::OS, go_architecture());
    let other = |found: &str, here: &str| !found.is_empty() && found != here;
    if other(&document.os, here.0) || other(&document.architecture, here.1) {
        let Document { os, architecture, .. } = document;
        return refuse(format!("is for {os}/{architecture}, this node is {}/{}", here.0, here.1));
    }
    if !document.rootfs.kind.is_empty() && document.rootfs.kind != "layers" {
        return refuse(format!("rootfs.type is {:?}, only layers is known", document.rootfs.kind));
    }
    let diff_ids = document.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers {
        return refuse(format!("has {} diff_ids, the manifest has {layers} layers", diff_ids.len()));
    }
    if layers > limits.max_layers {
        return refuse(format!("has {layers} layers, more than {} (max_layers)", limits.max_layers));
    }
    let Config { env, entrypoint, cmd, user, working_dir, stop_signal, volumes, labels } =
        document.config.unwrap_or_default();
    let config = ImageConfig {
        env: env.unwrap_or_default(),
        entrypoint: entrypoint.unwrap_or_default(),
        cmd: cmd.unwrap_or_default(),
        user: user.unwrap_or_default(),
        working_dir: working_dir.unwrap_or_default(),
        stop_signal: stop_signal.unwrap_or_default(),
        volumes: volumes.unwrap_or_default().into_keys().collect(),
        labels: labels.unwrap_or_default(),
    };
    Ok(ParsedConfig { config, diff_ids, created: document.created.unwrap_or_default() })
}

/// This machine's architecture in Go's words, which images use.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Chain ids of a stack of layers, lowest first: the first is its diff id, each further one the digest of the chain below and its
/// own diff id.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => berth_registry::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        Digest::from_bytes([n; 32]).to_string()
    }

    fn parsed(text: &str, layers: usize) -> Result<ParsedConfig> {
        parse(text.as_bytes(), layers, &Limits::default())
    }

    #[test]
    fn configurations_are_read_and_nulls_are_nothing() {
        let text = format!(
            r#"{{"created":"2024-01-01T00:00:00Z","os":"linux","architecture":"{}","config":{{"Env":["A=b"],"Cmd":null,
            "Volumes":{{"/data":{{}}}},"User":"1:2","Labels":{{"a":"b"}},"Unknown":7}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            go_architecture(),
            digest(1)
        );
        let found = parsed(&text, 1).unwrap();
        assert_eq!(
            (found.config.env, found.config.cmd, found.config.volumes),
            (vec!["A=b".into()], vec![], vec!["/data".into()])
        );
        assert_eq!(found.config.user, "1:2");
        assert!(parsed(r#"{"rootfs":{"diff_ids":null},"config":null}"#, 0).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let cases = [
            ("not json", "parse"),
            ("{}", "parse"),
            (r#"{"rootfs":{"diff_ids":["sha256:12"]}}"#, "64"),
            (r#"{"os":"windows","rootfs":{}}"#, "is for windows"),
            (r#"{"architecture":"s390x","rootfs":{}}"#, "s390x"),
            (r#"{"rootfs":{"type":"blobs"}}"#, "only layers"),
        ];
        for (text, problem) in cases {
            let error = parsed(text, 1).unwrap_err();
            assert!(error.message().contains(problem), "{text}: {error}");
        }
        let many = format!(r#"{{"rootfs":{{"diff_ids":[{}]}}}}"#, vec![format!("{:?}", digest(1)); 300].join(","));
        assert!(parsed(&many, 300).unwrap_err().message().contains("max_layers"));
        assert!(parsed(&many, 299).unwrap_err().message().contains("300 diff_ids"));
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let ids: Vec<Digest> = (1..4).map(|n| Digest::from_bytes([n; 32])).collect();
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        // printf 'sha256:0101.. sha256:0202..' | sha256sum, and the same with the result and the third.
        let expect = |below: &Digest, own: &Digest| berth_registry::sha256(format!("{below} {own}").as_bytes());
        assert_eq!(chain[1], expect(&ids[0], &ids[1]));
        assert_eq!(chain[2], expect(&chain[1], &ids[2]));
        assert_eq!(chain_ids(&ids[..2]), chain[..2]);
    }
}
