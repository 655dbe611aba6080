//! Sessions from a client's side, with real processes behind them and without root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on fails")]
mod attach;
mod client;
mod exec;
mod forward;
mod http_edge;
mod node;
