//! A folder on the target that actions may read, with everything in it that leads out of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::Result;
use harness::Stack;
use nix::sys::stat::Mode;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::WEB;

/// What no answer may ever hold.
pub const OUTSIDE: &str = "what lies outside";
/// What an allowed file holds.
pub const INSIDE: &str = "what lies inside\n";

/// An action that reads a file beneath `within` as `tail_log` does.
#[must_use]
pub fn reader(name: &str, within: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\ntitle = \"Read\"\ndescription = \"Reads.\"\nrisk = \"read\"\ntimeout_ms = 3000\n\
         [args]\nrequired = [\"path\"]\nproperties.path = {{ type = \"string\", maxLength = 4096 }}\n\
         [file.path]\nwithin = [\"{within}\"]\n{more}\
         [exec]\nprogram = \"/usr/libexec/writ/inspect\"\nargv = [\"tail\", \"-n\", \"5\"]\nstdin = \"{{path}}\"\n\
         [sandbox]\nprofile = \"reader\"\n"
    )
}

/// As records and Outcomes have it.
#[must_use]
pub fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was shown; nothing where nothing was.
#[must_use]
pub fn shown(answer: &Value) -> &str {
    answer["output"].as_str().unwrap_or_default()
}

/// Builds `/var/log/maze` anew; the target's root, seen from the harness.
pub fn maze(stack: &Stack) -> Result<&Path> {
    let root = stack.target(WEB)?.root();
    let _ = fs::remove_dir_all(root.at("var/log/maze"));
    root.folder("var/log/maze/deep", 0o755, (0, 0))?;
    for file in ["var/log/maze/file", "var/log/maze/deep/file"] {
        root.file(file, 0o644, INSIDE)?;
    }
    for file in ["var/log-evil/file", "var/lib/outside/file", "var/log/maze/hard"] {
        root.file(file, 0o644, OUTSIDE)?;
    }
    fs::hard_link(root.at("var/log/maze/hard"), root.at("var/log/maze/second"))?;
    let links = [
        ("/var/lib/outside/file", "link"),
        ("/var/lib/outside", "folder"),
        ("/proc/self/root/var/lib/outside/file", "magic"),
        ("../../lib/outside/file", "relative"),
        ("file", "harmless"),
    ];
    for (to, name) in links {
        symlink(to, root.at("var/log/maze").join(name))?;
    }
    nix::unistd::mkfifo(&root.at("var/log/maze/fifo"), Mode::from_bits_truncate(0o644))?;
    drop(UnixListener::bind(root.at("var/log/maze/socket"))?);
    Ok(root.path())
}
