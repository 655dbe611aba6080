//! Commands on the node and on the command line itself.
pub mod complete;
pub mod completion;
pub mod config;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod info;
pub mod inspect;
pub mod man;
pub mod version;
