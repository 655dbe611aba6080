//! Commands on pods, and Pods as people write them.
pub mod list;
pub mod node_facts;
pub mod places;
pub mod run;
pub mod spec;
