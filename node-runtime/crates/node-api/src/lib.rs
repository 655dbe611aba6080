//! The node API's gRPC edge: what the command line (and later the agent) asks of the daemon over node.sock.
//!
//! Owns: decode → engine → encode for these calls. Wire types end here. Must not: decide anything.
#![forbid(unsafe_code)]

mod attach;
mod config;
mod diagnose;
mod disk_usage;
mod events;
mod exec;
mod explain;
mod export_images;
mod give_credentials;
mod image_history;
mod image_referrers;
mod import_images;
mod info;
mod inspect;
mod kill;
mod metrics;
mod progress;
mod prune_images;
mod pull;
mod push_image;
mod restart;
mod revisions;
mod service;
mod stats;
mod tag_image;
mod untag_image;
mod wait;

pub use service::{DaemonFacts, NodeService, Scrape};
