//! Exec, attach and port-forward sessions.
//!
//! Owns: the streaming URLs, the wire formats behind them, and the bytes of every open session; it outlives the daemon that started
//! it. Must not: start or choose anything in a container. It asks the daemon with a token, gets descriptors, and moves bytes.
#![forbid(unsafe_code)]

pub mod protocol;
pub mod spdy;
