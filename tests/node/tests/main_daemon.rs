//! A whole `berth serve` with its clients, on this machine's kernel. Each module is run by itself, in a process of its own: one program
//! compiles and links in a tenth of the time of thirty.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

mod cni;
mod daemon;
mod daemon_cancel;
mod daemon_cli_copy;
mod daemon_cli_life;
mod daemon_cli_lists;
mod daemon_cli_sessions;
mod daemon_cni;
mod daemon_cni_hostile;
mod daemon_cni_plugins;
mod daemon_confinement;
mod daemon_disk;
mod daemon_doctor_daemon;
mod daemon_doctor_node;
mod daemon_doctor_pulls;
mod daemon_events;
mod daemon_exec;
mod daemon_explain;
mod daemon_hostile;
mod daemon_images;
mod daemon_kills;
mod daemon_lifecycle;
mod daemon_metrics;
mod daemon_monitors;
mod daemon_network;
mod daemon_places;
mod daemon_prefetch;
mod daemon_registries;
mod daemon_replace;
mod daemon_requests;
mod daemon_settings;
mod daemon_sockets;
mod daemon_stats;
mod daemon_stops;
mod daemon_streaming;
mod daemon_trust;
mod daemon_updates;
mod daemon_volumes;
mod network;
