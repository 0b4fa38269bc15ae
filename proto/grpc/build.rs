//! Compiles `ca.proto` with protox, which is Rust: no system `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=ca.proto");
    let descriptors = protox::compile(["ca.proto"], ["."])?;
    // A server that lacks a call answers it as one that there is not.
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
