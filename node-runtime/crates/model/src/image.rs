//! What the rest of the node needs to know of an image.
use crate::Digest;
use serde::{Deserialize, Serialize};

/// An image's id: the digest of its configuration. The same string in every CRI answer.
pub type ImageId = Digest;

/// The parts of an OCI image configuration that shape a container (OCI image spec, `config.md`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `KEY=value` pairs.
    pub env: Vec<String>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `User`, verbatim: `user`, `uid`, `user:group`, `uid:gid`.
    pub user: String,
    /// `WorkingDir`; empty means `/`.
    pub working_dir: String,
    /// `StopSignal`, verbatim.
    pub stop_signal: String,
    /// `Volumes`, the container paths.
    pub volumes: Vec<String>,
    /// `Labels`. Shown to people, never configuration of ours (CVE-2026-53488).
    pub labels: crate::Labels,
}

/// The user of an image as the CRI's ImageStatus reports it: number or name, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUser {
    /// `USER 1002` or `USER 1002:...`.
    Uid(u32),
    /// `USER www-data` or `USER www-data:...`.
    Name(String),
    /// No user set: root.
    Unset,
}

impl ImageConfig {
    /// The user part of `User` as the kubelet wants it.
    pub fn image_user(&self) -> ImageUser {
        let user = self.user.split(':').next().unwrap_or_default();
        match user.parse::<u32>() {
            Ok(uid) => ImageUser::Uid(uid),
            Err(_) if user.is_empty() => ImageUser::Unset,
            Err(_) => ImageUser::Name(user.to_owned()),
        }
    }
}

/// How far a pull has come. `total` is zero where it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// Short name of the thing that moves: a blob's digest, or empty for the pull as a whole.
    pub item: String,
    /// What happens to it.
    pub stage: PullStage,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The stages of a pull, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullStage {
    /// Asking the registry for the digest of a reference.
    Resolving,
    /// A blob arrives.
    Downloading,
    /// A layer is unpacked.
    Unpacking,
    /// The item is complete.
    Done,
    /// The item was here already; in a push, there.
    Exists,
    /// A blob is sent.
    Uploading,
}
