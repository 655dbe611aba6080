//! Exec, attach and port-forward sessions.
//!
//! Owns: the streaming URLs, the wire formats behind them, and the bytes of every open session; it outlives the daemon that started
//! it. Must not: start or choose anything in a container. It asks the daemon with a token, gets descriptors, and moves bytes.
//!
//! A command whose client vanishes gets SIGHUP, and SIGKILL five seconds later; a container's main process is never touched. Output
//! that nobody asked for is read and thrown away. A client that reads slowly makes its own process wait, and nobody else.
#![forbid(unsafe_code)]

mod daemon;
pub mod protocol;
mod server;
mod session;
mod socket;
pub mod spdy;
mod spdy_session;
mod streams;
mod tls;
mod upgrade;
mod websocket;
pub mod wire;

pub use server::{Options, run};
pub use session::connect_in;
pub use socket::Listen;
pub use tls::TlsFiles;
