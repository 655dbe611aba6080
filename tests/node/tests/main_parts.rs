//! The parts below the daemon, each on this machine's kernel: groups, images, init, the monitor, networks, seccomp, the store. Each module is run
//! by itself, in a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

mod cgroups;
mod cgroups_limits;
mod cgroups_processes;
mod images;
mod images_again;
mod images_archive;
mod images_cancel;
mod images_collect;
mod images_disk;
mod images_formats;
mod images_hostile;
mod images_mirrors;
mod images_pull;
mod images_push;
mod images_refill;
mod init;
mod init_container;
mod init_defence;
mod init_exec;
mod init_mounts;
mod init_sandbox;
mod init_userns;
mod leaks;
mod monitor;
mod monitor_cgroups;
mod monitor_logs;
mod monitor_memory;
mod monitor_protocol;
mod monitor_tasks;
mod network;
mod network_bridge;
mod network_dual;
mod network_firewalls;
mod network_limits;
mod network_ports;
mod network_repair;
mod network_sctp;
mod network_subnets;
mod seccomp_kernel;
mod store_disk;
