//! A static web server: the payload of the sample image.
fn main() {}
