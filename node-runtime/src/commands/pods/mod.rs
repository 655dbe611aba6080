//! Commands on pods, and Pods as people write them.
pub mod foreground;
pub mod image_options;
pub mod list;
pub mod node_facts;
pub mod places;
pub mod port_forward;
pub mod run;
pub mod spec;
