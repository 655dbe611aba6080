//! The daemon's monitors.
//!
//! Owns: starting them. What is spoken with them is `berth-monitor-client`'s, whose names are found here too.
mod launcher;

pub use crate::process::Process as MonitorProcess;
pub use berth_monitor_client::{
    CALL_LIMIT, Closed, Event, Failure, Monitor, Program, SpawnRequest, Start, TaskStdio, figures,
};
pub use launcher::{LaunchOptions, Launcher};
