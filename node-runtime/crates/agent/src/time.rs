//! Unix seconds, which plans are made with, and RFC 3339, which objects have.
pub use berth_crds::time::{seconds, text};

/// Now.
pub fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0).saturating_add_signed(wrong_by())
}

/// With the feature `failpoints`: `BERTH_AGENT_CLOCK` says by how many seconds this node's clock is ahead.
#[cfg(feature = "failpoints")]
fn wrong_by() -> i64 {
    std::env::var("BERTH_AGENT_CLOCK").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[cfg(not(feature = "failpoints"))]
const fn wrong_by() -> i64 {
    0
}
