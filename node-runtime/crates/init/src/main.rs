//! Creates a container, or enters one, and becomes its process.
fn main() {}
