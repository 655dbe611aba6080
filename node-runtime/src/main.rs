//! The node runtime: daemon and command line.
fn main() {}
