//! Images and the file system they lie on.
use super::u64_value;
use berth_images::{DiskUsage, FsUsage, ImageRecord};
use berth_model::ImageUser;
use berth_proto::cri as wire;

/// An image: user by number or by name, never both (cri-contract 2.3).
pub(crate) fn image(record: &ImageRecord) -> wire::Image {
    let (uid, username) = match record.config.image_user() {
        ImageUser::Uid(uid) => (Some(wire::Int64Value { value: i64::from(uid) }), String::new()),
        ImageUser::Name(name) => (None, name),
        ImageUser::Unset => (Some(wire::Int64Value { value: 0 }), String::new()),
    };
    wire::Image {
        id: record.id.to_string(),
        repo_tags: record.repo_tags.iter().map(ToString::to_string).collect(),
        repo_digests: record.repo_digests.iter().map(ToString::to_string).collect(),
        size: record.size,
        uid,
        username,
        spec: Some(wire::ImageSpec { image: record.id.to_string(), ..wire::ImageSpec::default() }),
        pinned: record.pinned,
    }
}

/// What images (`.0`) and writable layers (`.1`) take on the one file system that holds both.
pub(crate) fn filesystem_usage(usage: &FsUsage) -> (wire::FilesystemUsage, wire::FilesystemUsage) {
    let part = |used: DiskUsage| wire::FilesystemUsage {
        timestamp: usage.at,
        fs_id: Some(wire::FilesystemIdentifier { mountpoint: usage.mountpoint.to_string_lossy().into_owned() }),
        used_bytes: u64_value(used.bytes),
        inodes_used: u64_value(used.inodes),
    };
    (part(usage.images), part(usage.containers))
}
