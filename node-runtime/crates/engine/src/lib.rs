//! Use cases of the node: run, create, start, stop, remove, exec, pull, recover.
//!
//! Owns: the pod table in memory, the order of steps and their undo, what is durable when. Decides with pure planning (crate
//! `oci`, `trust`, the `plan` functions here) and acts through the capabilities, carrying values between them.
//! Must not: make system calls, know wire types.
//!
//! Invariants:
//! - A pod's record is on disk before anything of the pod exists, and goes last.
//! - List and status read the table and wait for nothing.
//! - Operations run in tasks of their own: a client that goes away stops no step midway; a retry joins.
//! - One writer per pod: changes go through [`pod::Pod::update`], which persists them in order.
//!
//! Tasks: one per running operation, one per pod that listens to its monitor (`supervise`).
#![forbid(unsafe_code)]

mod apparmor;
mod clock;
mod container;
mod context;
mod driver;
mod events;
mod explain;
mod image;
mod image_store;
mod inflight;
mod journal;
mod metrics;
mod network;
mod node;
mod oom;
mod own_group;
mod pod;
mod prefetch;
mod profiles;
mod reconcile;
mod record;
mod recover;
mod selinux;
mod session;
mod starts;
mod steps;
mod supervise;
mod table;
mod troubles;
mod verdict;

pub use berth_images::{Imported, Prune, PushOutcome, StoreUsage};
pub use berth_monitor_api::spec::TerminalSize;
pub use berth_monitor_api::sync::Identity;
pub use berth_network::CniReport;
pub use berth_oci::readback::Labels;
pub use container::control::Attached;
pub use container::exec::{ExecEnd, ExecOutput, ExecOverrides, ExecRequest, ExecSession, ExecStreams, RunningExec};
pub use container::stats::StatsFilter;
pub use context::{Engine, Parts, Paths, VERSION};
pub use driver::driver;
pub use events::{Event, EventKind, Subscription};
pub use explain::{Line, LineKind, StartReport};
pub use image::{PullOutcome, PullSpec};
pub use image_store::{ImportSpec, PushSpec};
pub use journal::{Happening, Happenings, Subject};
pub use metrics::Metrics;
pub use node::{Condition, NodeStatus};
pub use pod::stats::{PodReading, PodSamples};
pub use prefetch::{PrefetchState, Prefetched};
pub use profiles::check_profiles;
pub use record::{ContainerRecord, Life, PodPhase, PodRecord, PodResources, PullTimes, Span, Way};
pub use session::{Begun, MAX_TOKENS, Session, SessionStreams};
pub use table::{ContainerFilter, ContainerView, PodFilter, PodView};
pub use troubles::{Trouble, TroubleKind};
pub use verdict::PolicyCount;
