//! Commands on images.
pub mod list;
pub mod progress;
pub mod pull;
