//! What the peers put on the wire, as pure functions: names of protocols, requests, channel messages, sizes, outcomes.
//!
//! Owns: parsing and printing. Must not: do I/O. The fuzz target `streaming_wire` drives all that reads outside bytes.
pub mod channels;
pub mod protocols;
pub mod request;
pub mod resize;
pub mod status;
