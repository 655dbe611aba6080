//! What the parts of a node tell to whoever keeps figures: typed, so that a part needs to know nothing of metrics.
//!
//! Owns: the list of things that are told, and the handle by which they are. Must not: count, or know who listens. The engine
//! listens (`engine/src/metrics`) and makes series of it. Telling is cheap and never fails or waits. What happens between a node
//! and its registries is told by the registry crate's own observer.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Steps of a pull, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPhase {
    /// From a reference to a digest.
    Resolve,
    /// Waiting for the registry's bytes: manifests, configurations, layers.
    Fetch,
    /// Inflating and writing, as far as a pull waits for it beside the network.
    Unpack,
    /// Making it durable and visible.
    Commit,
}

impl PullPhase {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Resolve, Self::Fetch, Self::Unpack, Self::Commit];

    /// Its name in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Fetch => "fetch",
            Self::Unpack => "unpack",
            Self::Commit => "commit",
        }
    }
}

/// Where the bytes of an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteSource {
    /// The registry that the reference names.
    Registry,
    /// One of its mirrors.
    Mirror,
    /// They were here: another image has the layer, or a former attempt brought it.
    Present,
}

impl ByteSource {
    /// All.
    pub const ALL: [Self; 3] = [Self::Registry, Self::Mirror, Self::Present];

    /// Its name in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Mirror => "mirror",
            Self::Present => "present",
        }
    }
}

/// What is done to a pod's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkOperation {
    /// A pod is connected.
    Attach,
    /// It is taken off.
    Detach,
}

impl NetworkOperation {
    /// Its name in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
        }
    }
}

/// What a reconciler found that nobody owned any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leak {
    /// A monitor without a pod.
    Monitor,
    /// An address lease without a pod.
    Lease,
    /// A network interface without a pod.
    Interface,
    /// An element of a nftables set without a pod.
    NftElement,
    /// A root file system without a container.
    Rootfs,
    /// A pod's directory on tmpfs without a pod.
    Directory,
    /// A control group of a pod or container without a record.
    Cgroup,
}

impl Leak {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::Monitor, Self::Lease, Self::Interface, Self::NftElement, Self::Rootfs, Self::Directory, Self::Cgroup];

    /// Its name in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Lease => "lease",
            Self::Interface => "interface",
            Self::NftElement => "nft_element",
            Self::Rootfs => "rootfs",
            Self::Directory => "directory",
            Self::Cgroup => "cgroup",
        }
    }
}

/// One thing that happened. Texts are as they came; who makes series of them bounds their number.
#[derive(Debug, Clone, Copy)]
pub enum Observation<'a> {
    /// A step of a pull is over.
    PullPhase {
        /// The registry that the reference names, such as `docker.io`.
        registry: &'a str,
        /// Which step.
        phase: PullPhase,
        /// How long it took.
        took: Duration,
    },
    /// Bytes of blobs, as they are sent: compressed.
    PullBytes {
        /// From where.
        source: ByteSource,
        /// How many.
        bytes: u64,
    },
    /// A layer that a pull wanted.
    Layer {
        /// It was here already.
        shared: bool,
    },
    /// The collector of images is through.
    Collected {
        /// Snapshots that were removed.
        snapshots: u64,
        /// Blobs that were removed.
        blobs: u64,
        /// Bytes that they took.
        bytes: u64,
        /// How long it took.
        took: Duration,
        /// Whether it reached its end.
        ok: bool,
    },
    /// A network did something for a pod.
    Network {
        /// Whether it is that of the CNI plugins, and not the built-in one.
        cni: bool,
        /// What.
        operation: NetworkOperation,
        /// How long it took.
        took: Duration,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A reconciler found things that nobody owned, and removed them.
    Leaked {
        /// What.
        what: Leak,
        /// How many.
        count: u64,
    },
}

/// Whoever listens.
pub trait Observe: Send + Sync {
    /// Takes note. Must be quick.
    fn observe(&self, what: Observation<'_>);
}

/// Where a part tells what happens. The default one tells nobody. Clones tell the same.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Observe>>);

impl Observer {
    /// Tells this listener.
    pub fn new(listener: Arc<dyn Observe>) -> Self {
        Self(Some(listener))
    }

    /// Tells.
    pub fn tell(&self, what: Observation<'_>) {
        if let Some(listener) = &self.0 {
            listener.observe(what);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer" } else { "Observer(nobody)" })
    }
}
