//! What tests with a kubelet in the guest share.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod agent;
pub mod http;
pub mod machine;
pub mod plane;
pub mod pods;

pub use machine::Machine;
