//! Compiles `ca.proto` with protox, which is Rust: no system `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=ca.proto");
    let descriptors = protox::compile(["ca.proto"], ["."])?;
    tonic_prost_build::compile_fds(descriptors)?;
    Ok(())
}
