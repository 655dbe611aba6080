//! Where images live and what they may cost.
use berth_model::Observer;
use std::path::PathBuf;

/// Settings of the image store.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Directory of everything that images take, on one file system: `DIR/lib/images`, or where the settings want it.
    pub root: PathBuf,
    /// Directories that it was before, the latest first. What is there is used until nobody needs it, and nothing is added.
    pub former: Vec<PathBuf>,
    /// Limits.
    pub limits: Limits,
    /// Keep the compressed layers after they were unpacked, to push and export them byte for byte: what is packed again has other
    /// digests. Costs their size on disk again, as it does with containerd. [`crate::Images::keep_layer_blobs`] changes it.
    pub keep_layer_blobs: bool,
    /// Who is told of pulls and collections.
    pub observer: Observer,
}

/// Limits of a pull. All are of the image's content; a registry's answers have limits of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most layers of an image. Overlayfs stacks at most 500 (fs/overlayfs/params.h, OVL_MAX_STACK).
    pub max_layers: usize,
    /// Most entries of an index.
    pub max_index_entries: usize,
    /// Longest image configuration in bytes.
    pub max_config: u64,
    /// Most bytes of one layer, uncompressed.
    pub max_uncompressed_layer: u64,
    /// Most bytes of all layers of an image, uncompressed.
    pub max_uncompressed_image: u64,
    /// Most bytes that one compressed byte may become, looked at from 256 MiB on. Deflate itself reaches 1032.
    pub max_ratio: u64,
    /// Most entries of one layer.
    pub max_entries: u64,
    /// Bytes that a pull leaves free on the disk. Zero turns the check off.
    pub min_free: u64,
    /// Blobs that are fetched and unpacked at the same time, by all pulls together.
    pub concurrent_blobs: usize,
    /// Most bytes of an archive that is imported, uncompressed.
    pub max_archive: u64,
    /// Most files of an archive that is imported.
    pub max_archive_files: usize,
}

impl ImagesConfig {
    /// The defaults for a root directory.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            former: Vec::new(),
            limits: Limits::default(),
            keep_layer_blobs: true,
            observer: Observer::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_layers: 256,
            max_index_entries: berth_registry::MAX_INDEX_ENTRIES,
            max_config: 4 << 20,
            max_uncompressed_layer: 128 << 30,
            max_uncompressed_image: 256 << 30,
            max_ratio: 1100,
            max_entries: 4 << 20,
            min_free: 64 << 20,
            concurrent_blobs: 6,
            max_archive: 256 << 30,
            max_archive_files: 16 << 10,
        }
    }
}

/// The limits that hold while one layer is unpacked.
#[derive(Debug, Clone)]
pub struct LayerLimits {
    /// Most bytes, uncompressed.
    pub max_bytes: u64,
    /// Most bytes of the whole image, uncompressed.
    pub max_image_bytes: u64,
    /// Most bytes out of one byte in.
    pub max_ratio: u64,
    /// The ratio is not looked at before so many bytes came out.
    pub ratio_from: u64,
    /// Most entries.
    pub max_entries: u64,
    /// Bytes to leave free on the disk.
    pub min_free: u64,
}

impl From<&Limits> for LayerLimits {
    fn from(l: &Limits) -> Self {
        Self {
            max_bytes: l.max_uncompressed_layer,
            max_image_bytes: l.max_uncompressed_image,
            max_ratio: l.max_ratio,
            ratio_from: 256 << 20,
            max_entries: l.max_entries,
            min_free: l.min_free,
        }
    }
}
