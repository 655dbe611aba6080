//! What needs systemd and pure cgroup v2: run in the guest. Each module is run by itself, in a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

mod cgroups;
mod daemon;
mod guest;
mod guest_adopt;
mod guest_agent;
mod guest_apparmor;
mod guest_cgroups;
mod guest_daemon;
mod guest_doctor;
mod guest_guide;
mod guest_kubelet;
mod guest_package;
mod guest_quota;
mod guest_reboot;
mod guest_selinux;
mod guide;
mod images;
mod packages;
mod takeover;
