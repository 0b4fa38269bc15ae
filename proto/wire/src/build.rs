//! Which build this process is, for `--version`, records and hellos.
//!
//! The id changes with every commit. Only `main` knows it, so that a commit makes a program be linked again and not
//! everything that it consists of be compiled again.

use std::sync::OnceLock;

static ID: OnceLock<&str> = OnceLock::new();

/// Says which build this is, as the first thing that `main` does: `option_env!("BUILD_ID")`, which the Makefile sets to what
/// `git describe` says. The first word stands.
pub fn is(id: Option<&'static str>) {
    let _ = ID.set(id.unwrap_or("unknown"));
}

/// The build's id: `git describe` at compile time, or `unknown` where the builder did not say.
#[must_use]
pub fn id() -> &'static str {
    ID.get().copied().unwrap_or("unknown")
}

/// What `--version` prints after the program's name: `0.1.0 build <id>`.
#[must_use]
pub fn version() -> String {
    format!("{} build {}", env!("CARGO_PKG_VERSION"), id())
}
