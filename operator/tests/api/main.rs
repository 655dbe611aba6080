//! What an API server, or a proxy before it, may answer to what the operator writes, and to its lease: a budget's 429, 500, HTML, nothing at
//! all, an expired token. None of it holds up anything else, or lets two lead.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

mod lease;
mod passes;
mod server;
mod shared;
mod uninstall;
mod waiting;
mod writes;
