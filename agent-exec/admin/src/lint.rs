//! `writ-target catalogue lint`: every fault of every manifest, one line each.

use std::path::Path;

use catalogue::Catalogue;

use crate::{ACTIONS, Failure};

/// Lints a folder: the target's own, whose files must belong to root, or another, which may belong to the caller as well.
/// The actions that are offered come back, one a line.
///
/// # Errors
/// [`Failure::Refused`] with all faults.
pub fn run(folder: Option<&Path>) -> Result<String, Failure> {
    let own = nix::unistd::geteuid().as_raw();
    match folder {
        Some(folder) => lint(folder, &[0, own]),
        None => lint(Path::new(ACTIONS), &[0]),
    }
}

fn lint(folder: &Path, owners: &[u32]) -> Result<String, Failure> {
    let (catalogue, faults) = Catalogue::lint(folder, owners);
    let shown = folder.display();
    if !faults.is_empty() {
        let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
        let number = faults.len();
        let plural = if number == 1 { "fault" } else { "faults" };
        return Err(Failure::Refused(format!(
            "{number} {plural} in {shown}; a faulty action is not offered, the others are:\n{}",
            lines.join("\n")
        )));
    }
    if catalogue.is_empty() {
        return Ok(format!("{shown} has no manifests: this target offers no action"));
    }
    let actions: Vec<String> = catalogue
        .iter()
        .map(|(name, entry)| format!("{name}  {}  {}", entry.manifest().risk().as_str(), entry.digest()))
        .collect();
    Ok(actions.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn good_actions_are_listed_and_faults_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(run(Some(folder.path())).unwrap().contains("no action"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        };
        write(
            "tail_log.toml",
            include_str!("../../../proto/catalogue/actions.d/tail_log.toml"),
        );
        assert!(run(Some(folder.path())).unwrap().starts_with("tail_log  read  "));
        write("bad.toml", "name = \"bad\"\nshell = true\n");
        let failure = run(Some(folder.path())).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(
            failure.to_string().contains("bad.toml: shell: is not a known key"),
            "{failure}"
        );
        assert!(failure.to_string().contains("bad.toml: risk: is missing"), "{failure}");
    }
}
