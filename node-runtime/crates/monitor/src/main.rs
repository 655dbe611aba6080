//! Supervises the processes of one pod.
fn main() {}
