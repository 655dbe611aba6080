//! Commands on images.
pub mod archive;
pub mod df;
pub mod history;
pub mod image;
pub mod list;
pub mod login;
pub mod progress;
pub mod prune;
pub mod pull;
pub mod push;
pub mod referrers;
pub mod rmi;
