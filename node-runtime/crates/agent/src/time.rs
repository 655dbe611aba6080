//! Unix seconds, which plans are made with, and RFC 3339, which objects have.
pub use berth_crds::time::{seconds, text};

/// Now.
pub fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
