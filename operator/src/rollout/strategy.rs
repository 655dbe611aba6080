//! How a rollout is to be done: what an administrator sets, with the defaults.

/// A number of nodes, or a part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Nodes(usize),
    /// So many of a hundred; 1 to 100.
    Percent(u8),
}

impl Share {
    /// Of a group of nodes, rounded up: the size of a wave is never 0 while there are nodes.
    pub fn at_least(self, of: usize) -> usize {
        match self {
            Self::Nodes(count) => count.min(of),
            Self::Percent(percent) => (of * usize::from(percent)).div_ceil(100).min(of),
        }
    }

    /// Of a group of nodes, rounded down: what may fail or be away.
    pub fn at_most(self, of: usize) -> usize {
        match self {
            Self::Nodes(count) => count,
            Self::Percent(percent) => of * usize::from(percent) / 100,
        }
    }
}

/// What happens when too many nodes fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Every node goes back to the last known good revision.
    #[default]
    Rollback,
    /// Everything stays as it is until somebody decides.
    Halt,
    /// Failures are reported, and the rollout goes on.
    Continue,
}

/// What happens to nodes of the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ControlPlane {
    /// They keep what they have.
    #[default]
    Exclude,
    /// They come after all others, one at a time.
    Last,
}

/// How a rollout is to be done. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// Sizes of the waves, each counting the waves before it. After the last one everybody is due.
    pub waves: Vec<Share>,
    /// Most nodes that may be unavailable when a change interrupts a node, those counted that are away for other reasons.
    pub max_unavailable: Share,
    /// Most nodes at work at a time when a change interrupts nothing.
    pub max_in_flight: Share,
    /// How long the first wave must be well before the second one starts.
    pub soak_canary: u64,
    /// How long each further wave must be well.
    pub soak_wave: u64,
    /// How many may fail after the first wave; in the first wave none.
    pub failures: Share,
    /// How long a node may take; then it has failed.
    pub node_timeout: u64,
    /// How long evicting a node's pods may take; then it gets its turn later.
    pub drain_timeout: u64,
    /// How long a node whose pods could not be evicted is left alone.
    pub drain_backoff: u64,
    /// What happens when too many fail.
    pub on_failure: OnFailure,
    /// What happens to nodes of the control plane.
    pub control_plane: ControlPlane,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            waves: vec![Share::Nodes(1), Share::Percent(5), Share::Percent(25), Share::Percent(100)],
            max_unavailable: Share::Nodes(1),
            max_in_flight: Share::Percent(10),
            soak_canary: 600,
            soak_wave: 300,
            failures: Share::Percent(5),
            node_timeout: 900,
            drain_timeout: 1800,
            drain_backoff: 900,
            on_failure: OnFailure::default(),
            control_plane: ControlPlane::default(),
        }
    }
}
