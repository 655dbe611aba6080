//! Compiles the two `.proto` files in process (protox), so no protoc is needed.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for dir in ["cri", "node"] {
        println!("cargo:rerun-if-changed={dir}");
    }
    let files = protox::compile(["cri/runtime_v1.proto", "node/node_v1.proto"], ["."])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
