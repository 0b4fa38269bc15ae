//! How the program is linked where it brings its own start: `--cfg no_c_library`, docs/adr/0009.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rustc-check-cfg=cfg(no_c_library)");
    if std::env::var_os("CARGO_CFG_NO_C_LIBRARY").is_none() {
        return;
    }
    for argument in [
        "-nostartfiles",
        "-nodefaultlibs",
        "-static",
        concat!("-Wl,-T,", env!("CARGO_MANIFEST_DIR"), "/link.ld"),
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
