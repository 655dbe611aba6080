//! Commands on images.
pub mod list;
pub mod login;
pub mod progress;
pub mod pull;
