//! The image store's part of a RuntimeConfig: its disk, its limits, its pinned images.
//!
//! Owns: these types and their rules. Must not: look at a disk.
use crate::runtime_config::seconds;
use berth_model::{Error, Reference, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most pinned images, and most to prefetch.
const MAX_REFERENCES: usize = 500;

/// The disk of images and writable layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// Directory of images and writable layers, on a disk of its own for example: absolute, of letters, digits and `. _ -`, at most 128 bytes,
    /// at a place where nothing else is kept. Its last component is made where it is missing; one that is not empty, and not Berth's own, is
    /// refused. Default `lib/images` in the daemon's root. After a daemon restart what is made lies there; images and containers of
    /// before stay where they are for as long as they are needed, so no pod has to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Keep compressed layers after they were unpacked, so that images can be pushed and exported byte for byte; default true. Images that
    /// are here already keep what they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_compressed_layers: Option<bool>,
    /// Most bytes that images take, such as `50Gi`; unset is no limit. Above it unused images go, the one first that was of no use for
    /// longest; pulls are not refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_fs_quota: Option<String>,
    /// Most bytes that a container may write into its root file system and the image's volumes, such as `10Gi`; unset is no limit. Needs a
    /// file system that enforces project quota (XFS or ext4, mounted with `prjquota`): a node without one refuses the document. The annotation
    /// `berth.dev/writable-layer-limit` of a container or its pod can lower it and not raise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable_layer_limit: Option<String>,
    /// Collection of images by how full the disk is. The kubelet has its own; this one is for nodes without, and off by default.
    #[serde(default)]
    pub gc: StorageGc,
}

/// When unused images are removed by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageGc {
    /// Percentage of the disk in use from which on images are removed, 1 to 100; unset is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<u8>,
    /// Percentage at which that ends, below `high`; default five less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<u8>,
    /// How long an image was of no use before it may go, such as `2m`; default `2m`, as the kubelet has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age: Option<String>,
}

/// Images of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// References (with tag or digest) of images that are never removed to make room, neither by the kubelet nor by the node itself;
    /// at most 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
    /// References (with tag or digest) of images that the daemon fetches by itself, in the background and in this order, once these settings
    /// are in force; at most 500. One that cannot be had is tried again, ever more seldom, and told; it fails nothing. A tag that is on the
    /// node is not looked up again. Image policy decides as for a pod of an unknown namespace. They may be removed again like any
    /// other image unless `pinned` has them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefetch: Vec<String>,
}

/// Bytes of a quantity like `500Mi`, `2G` or `1024`; `None` for anything else.
pub fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let scale: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

/// Longest directory of the store, in bytes: an overlay of many layers names it often.
const MAX_DIRECTORY: usize = 128;
const DIRECTORY_WORDS: &str = "must be an absolute path of at most 128 bytes, of letters, digits and . _ -, without . and .., such as /data/berth";
const RESERVED_WORDS: &str = "must not be in /dev, /proc, /sys, /run, /var/run, /tmp, /etc, /boot, /opt/berth, /var/lib/berth, \
     /var/lib/kubelet or /var/lib/containerd: name a directory of its own on a disk, such as /data/berth";
/// Where no store belongs: what a boot empties, and what others or Berth itself keep there.
const RESERVED: [&str; 12] = [
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/var/run",
    "/tmp",
    "/etc",
    "/boot",
    "/opt/berth",
    "/var/lib/berth",
    "/var/lib/kubelet",
    "/var/lib/containerd",
];

fn check_directory(directory: &str) -> Result<()> {
    let refused = |words: &str| Err(Error::invalid("spec.runtime.storage.directory", words));
    let is_name = |name: &str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !matches!(name, "" | "." | "..") && name.bytes().all(is_plain)
    };
    let names = directory.strip_prefix('/').filter(|_| directory.len() <= MAX_DIRECTORY);
    if !names.is_some_and(|names| names.split('/').all(is_name)) {
        return refused(DIRECTORY_WORDS);
    }
    let below =
        |place: &str| directory.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if RESERVED.into_iter().any(below) { refused(RESERVED_WORDS) } else { Ok(()) }
}

pub(crate) fn check_storage(storage: &Storage) -> Result<()> {
    let field = |name: &str| format!("spec.runtime.storage.{name}");
    storage.directory.as_deref().map_or(Ok(()), check_directory)?;
    if let Some(quota) = &storage.image_fs_quota
        && bytes(quota).is_none_or(|b| b < 1 << 20)
    {
        let problem = format!("{quota:?} is not a quantity of at least 1Mi, such as 50Gi");
        return Err(Error::invalid(field("imageFsQuota"), problem));
    }
    if let Some(limit) = &storage.writable_layer_limit
        && bytes(limit).is_none_or(|b| b < 64 << 10)
    {
        let problem = format!("{limit:?} is not a quantity of at least 64Ki, such as 10Gi");
        return Err(Error::invalid(field("writableLayerLimit"), problem));
    }
    let StorageGc { high, low, min_age } = &storage.gc;
    for (name, value) in [("gc.high", high), ("gc.low", low)] {
        if value.is_some_and(|v| !(1..=100).contains(&v)) {
            return Err(Error::invalid(field(name), "must be a percentage, 1 to 100"));
        }
    }
    if let (Some(high), Some(low)) = (high, low)
        && low >= high
    {
        return Err(Error::invalid(field("gc.low"), format!("is {low}, must be below gc.high, which is {high}")));
    }
    if let Some(age) = min_age
        && seconds(age).is_none()
    {
        return Err(Error::invalid(field("gc.minAge"), format!("{age:?} is not a duration like 90s, 2m or 1h30m")));
    }
    Ok(())
}

pub(crate) fn check_images(images: &Images) -> Result<()> {
    references("spec.images.pinned", &images.pinned)?;
    references("spec.images.prefetch", &images.prefetch)
}

fn references(field: &str, texts: &[String]) -> Result<()> {
    if texts.len() > MAX_REFERENCES {
        return Err(Error::invalid(field, format!("has {} entries, the limit is {MAX_REFERENCES}", texts.len())));
    }
    for (i, text) in texts.iter().enumerate() {
        Reference::parse(text).map_err(|e| Error::invalid(format!("{field}[{i}]"), e.message()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        assert_eq!(bytes("1024"), Some(1024));
        assert_eq!(bytes("50Gi"), Some(50 << 30));
        assert_eq!(bytes("2G"), Some(2_000_000_000));
        for bad in ["", "Gi", "-1", "1.5Gi", "1 Gi", "1GiB", "99999999999Ti"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn rules_name_field_and_limit() {
        let storage = |text: &str| check_storage(&serde_yaml::from_str(text).unwrap());
        storage("{directory: /run-of-disks/berth_1.x}").unwrap();
        storage("{imageFsQuota: 50Gi, gc: {high: 85, low: 80, minAge: 90s}, keepCompressedLayers: false}").unwrap();
        for (text, field) in [
            ("{directory: data}", "absolute path of at most 128"),
            ("{directory: /data/../berth}", "without . and .."),
            ("{directory: '/data/a:b'}", "letters, digits"),
            ("{directory: /data/}", "absolute path"),
            ("{directory: /}", "absolute path"),
            ("{directory: /var/lib/berth/more}", "must not be in"),
            ("{directory: /run}", "must not be in"),
            ("{imageFsQuota: much}", "storage.imageFsQuota"),
            ("{imageFsQuota: '10'}", "at least 1Mi"),
            ("{writableLayerLimit: 1k}", "at least 64Ki"),
            ("{gc: {high: 101}}", "storage.gc.high"),
            ("{gc: {high: 80, low: 80}}", "below gc.high"),
            ("{gc: {minAge: soon}}", "storage.gc.minAge"),
        ] {
            let error = storage(text).unwrap_err();
            assert!(error.message().contains(field), "{text}: {error}");
        }
        let pinned = |texts: Vec<String>| check_images(&Images { pinned: texts, ..Images::default() });
        pinned(vec!["r.io/pause:1".into(), format!("r.io/x@sha256:{}", "0".repeat(64))]).unwrap();
        assert!(pinned(vec!["UPPER".into()]).unwrap_err().message().contains("spec.images.pinned[0]"));
        assert!(pinned(vec!["a:1".into(); 501]).unwrap_err().message().contains("500"));
        let prefetch = |texts: Vec<String>| check_images(&Images { prefetch: texts, ..Images::default() });
        prefetch(vec!["r.io/pause:1".into(); 500]).unwrap();
        assert!(
            prefetch(vec!["r.io/a:1".into(), "a b".into()]).unwrap_err().message().contains("spec.images.prefetch[1]")
        );
        assert!(prefetch(vec!["a:1".into(); 501]).unwrap_err().message().contains("spec.images.prefetch: has 501"));
    }
}
