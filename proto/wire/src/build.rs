//! Which build this is, for `--version`, records and hellos.

/// The build's id: `git describe` at compile time, or `unknown` where the builder did not say.
pub const ID: &str = match option_env!("BUILD_ID") {
    Some(id) => id,
    None => "unknown",
};

/// What `--version` prints after the program's name: `0.1.0 build <id>`.
#[must_use]
pub fn version() -> String {
    format!("{} build {ID}", env!("CARGO_PKG_VERSION"))
}
