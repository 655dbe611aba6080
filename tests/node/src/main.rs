//! Tests of the node half on a real kernel.
fn main() {}
