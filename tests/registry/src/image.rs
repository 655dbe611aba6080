//! Images: a configuration, layers and the manifest that binds them.
//!
//! Owns: the documents of an image. Must not: serve them.
use crate::layer::{BuiltLayer, Layer};
use crate::sha256;
use berth_model::Digest;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::io;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An image under construction: `ImageBuilder::new("app", "v1").layer(..).entrypoint(["/app"])`.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    pub(crate) repo: String,
    pub(crate) tag: Option<String>,
    layers: Vec<Layer>,
    config: Map<String, Value>,
    os: String,
    architecture: String,
    variant: Option<String>,
    docker: bool,
    annotations: Map<String, Value>,
    created: String,
}

/// A finished image.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// Manifest bytes.
    pub manifest: Bytes,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Media type of the manifest.
    pub media_type: String,
    /// Configuration bytes; their digest is the image id.
    pub config: Bytes,
    /// Digest of the configuration.
    pub config_digest: Digest,
    /// Layers, lowest first.
    pub layers: Vec<BuiltLayer>,
    /// Operating system, for an index.
    pub os: String,
    /// Architecture, for an index.
    pub architecture: String,
    /// Variant of the architecture, for an index.
    pub variant: Option<String>,
}

impl ImageBuilder {
    /// An OCI image for linux on this machine's architecture. An empty tag leaves it untagged.
    pub fn new(repo: &str, tag: &str) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self {
            repo: repo.to_owned(),
            tag: (!tag.is_empty()).then(|| tag.to_owned()),
            layers: Vec::new(),
            config: Map::new(),
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
            docker: false,
            annotations: Map::new(),
            created: "2024-01-01T00:00:00Z".into(),
        }
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Sets any field of the configuration's `config` object.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// Sets `Entrypoint`.
    #[must_use]
    pub fn entrypoint<I: IntoIterator<Item = S>, S: Into<String>>(self, argv: I) -> Self {
        self.config("Entrypoint", strings(argv))
    }

    /// Sets `Cmd`.
    #[must_use]
    pub fn cmd<I: IntoIterator<Item = S>, S: Into<String>>(self, argv: I) -> Self {
        self.config("Cmd", strings(argv))
    }

    /// Sets `Env`, entries as `KEY=value`.
    #[must_use]
    pub fn env<I: IntoIterator<Item = S>, S: Into<String>>(self, pairs: I) -> Self {
        self.config("Env", strings(pairs))
    }

    /// Sets `User`.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.config("User", json!(user))
    }

    /// Sets `WorkingDir`.
    #[must_use]
    pub fn working_dir(self, dir: &str) -> Self {
        self.config("WorkingDir", json!(dir))
    }

    /// Sets `StopSignal`.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.config("StopSignal", json!(signal))
    }

    /// Adds a volume path.
    #[must_use]
    pub fn volume(mut self, path: &str) -> Self {
        add(&mut self.config, "Volumes", path, json!({}));
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        add(&mut self.config, "Labels", key, json!(value));
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), json!(value));
        self
    }

    /// Sets the platform, such as `("linux", "arm64", Some("v8"))`.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str, variant: Option<&str>) -> Self {
        (self.os, self.architecture, self.variant) = (os.into(), architecture.into(), variant.map(Into::into));
        self
    }

    /// Sets when it was built, in RFC 3339.
    #[must_use]
    pub fn created(mut self, at: &str) -> Self {
        self.created = at.to_owned();
        self
    }

    /// Uses Docker's media types (schema 2) in place of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Makes the documents. Errors: a compressor's, which in memory means none.
    pub fn build(&self) -> io::Result<BuiltImage> {
        let layers = self.layers.iter().map(Layer::build).collect::<io::Result<Vec<_>>>()?;
        let config = self.config_bytes(&layers)?;
        let config_digest = sha256(&config);
        let (media_type, config_type) =
            if self.docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": config_type, "digest": config_digest.as_str(), "size": config.len()},
            "layers": layers.iter().map(|l| self.layer_descriptor(l)).collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = Value::Object(self.annotations.clone());
        }
        let manifest = Bytes::from(serde_json::to_vec(&manifest)?);
        Ok(BuiltImage {
            digest: sha256(&manifest),
            manifest,
            media_type: media_type.into(),
            config,
            config_digest,
            layers,
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        })
    }

    fn config_bytes(&self, layers: &[BuiltLayer]) -> io::Result<Bytes> {
        let mut config = json!({
            "created": self.created,
            "os": self.os,
            "architecture": self.architecture,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.as_str()).collect::<Vec<_>>()},
            "history": layers.iter().map(|_| json!({"created_by": "berth-test-registry"})).collect::<Vec<_>>(),
        });
        if let Some(variant) = &self.variant {
            config["variant"] = json!(variant);
        }
        Ok(serde_json::to_vec(&config)?.into())
    }

    fn layer_descriptor(&self, layer: &BuiltLayer) -> Value {
        let gzip = layer.media_type == crate::Compression::Gzip.media_type();
        let media_type = if self.docker && gzip { DOCKER_LAYER } else { &layer.media_type };
        json!({"mediaType": media_type, "digest": layer.digest.as_str(), "size": layer.size})
    }
}

/// An OCI index over images, with their platforms.
pub fn build_index(images: &[BuiltImage]) -> io::Result<Bytes> {
    let entry = |image: &BuiltImage| {
        let mut platform = json!({"os": image.os, "architecture": image.architecture});
        if let Some(variant) = &image.variant {
            platform["variant"] = json!(variant);
        }
        json!({
            "mediaType": image.media_type,
            "digest": image.digest.as_str(),
            "size": image.manifest.len(),
            "platform": platform,
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": images.iter().map(entry).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_vec(&index)?.into())
}

fn strings<I: IntoIterator<Item = S>, S: Into<String>>(items: I) -> Value {
    Value::Array(items.into_iter().map(|s| Value::String(s.into())).collect())
}

fn add(config: &mut Map<String, Value>, object: &str, key: &str, value: Value) {
    let slot = config.entry(object).or_insert_with(|| json!({}));
    slot[key] = value;
}
