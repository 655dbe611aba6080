//! Commands on the node and on the command line itself.
pub mod completion;
pub mod config;
pub mod events;
pub mod info;
pub mod inspect;
pub mod version;
