//! `writ-target sudoers`: what sudo may run for Writ, line by line, from the target's own catalogue.
//!
//! Each line is one whole command line, with no wildcard and with the time after which sudo ends root's process. It is
//! given to writ-exec alone, the account that records before it runs; agent-runner, which actions run as, has none. What
//! the process gets of an environment is decided here and not by the rest of sudoers, which may be laxer.

use std::collections::BTreeMap;
use std::path::Path;

use catalogue::{Catalogue, Manifest};

use crate::files::{Draft, read_owned};
use crate::{ACTIONS, Failure};

/// Where sudo looks for it. A name with a dot would be passed over.
pub const SUDOERS: &str = "/etc/sudoers.d/writ";
/// What checks a file of sudoers.
pub(crate) const VISUDO: &str = "/usr/sbin/visudo";
/// Mode of a file of sudoers.
pub(crate) const MODE: u32 = 0o440;

/// The account whose lines they are.
const ACCOUNT: &str = "writ-exec";

/// Longest file that is compared, in bytes: the lines of some dozens of actions.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Of what stands in sudoers elsewhere nothing changes what root's process starts with: a new environment of constants, a
/// search path, a umask, no variable that a caller could set, no terminal, no lookup of this host's name, no PAM session
/// (whose modules set variables and limits), nothing kept open above standard error.
const DEFAULTS: [&str; 4] = [
    "env_reset, !setenv, !env_keep, env_check = \"LANG TZ\", !env_file, !restricted_env_file",
    "secure_path = \"/usr/sbin:/usr/bin:/sbin:/bin\", umask = 0077, umask_override, !set_home",
    "closefrom = 3, !closefrom_override, !user_command_timeouts, !requiretty, !use_pty",
    "!pam_session, !pam_setcred, !fqdn, lecture = never",
];

/// The text of the file for the target's own catalogue.
///
/// # Errors
/// [`Failure::Refused`] where the catalogue has faults, or two actions run one command line with different times.
pub fn run() -> Result<String, Failure> {
    text(&catalogue()?)
}

/// Puts the file in its place, after visudo has accepted it. What was done.
///
/// # Errors
/// As [`run`]; [`Failure::Refused`] for anybody but root, or where visudo does not accept it.
pub fn install() -> Result<String, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::Refused(format!(
            "{SUDOERS} is root's to write: run it with sudo"
        )));
    }
    let text = run()?;
    let lines = text.lines().filter(|line| line.starts_with(ACCOUNT)).count();
    let place = Path::new(SUDOERS);
    let told = if lines == 1 {
        "1 command line"
    } else {
        &format!("{lines} command lines")
    };
    if read_owned(place, 0, 0o337, MAX_BYTES).is_ok_and(|found| found.as_deref() == Some(&text)) {
        return Ok(format!("{SUDOERS} lists {told}, as before"));
    }
    // Its name has a dot, so that sudo passes it over until it is renamed.
    let mut draft = Draft::new(place, MODE)?;
    draft.write(text.as_bytes())?;
    visudo(draft.path())?;
    draft.replace()?;
    Ok(format!("{SUDOERS} lists {told}"))
}

/// Asks visudo about a file.
fn visudo(path: &Path) -> Result<(), Failure> {
    let output = std::process::Command::new(VISUDO)
        .args(["-c", "-f"])
        .arg(path)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| Failure::Failed(format!("failed to run {VISUDO}: {error}; is sudo installed?")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Refused(format!(
        "visudo does not accept it, and nothing was changed: {}",
        said.trim()
    )))
}

/// The target's own catalogue, where it has no faults: lines of half a catalogue would take away what the other half needs.
pub(crate) fn catalogue() -> Result<Catalogue, Failure> {
    Catalogue::load_owned(Path::new(ACTIONS), &[0]).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
        Failure::Refused(format!("{ACTIONS} has faults:\n{}", faults.join("\n")))
    })
}

/// The text of the file.
pub(crate) fn text(catalogue: &Catalogue) -> Result<String, Failure> {
    let rules = rules(catalogue.iter().map(|(_, entry)| entry.manifest()))?;
    let mut text = "# What sudo may run for Writ: made by `writ-target sudoers --install` from /etc/writ/actions.d.\n\
                    # Do not edit it; make it again after every change there.\n"
        .to_owned();
    if rules.is_empty() {
        text.push_str("# No action has privilege = \"sudo\".\n");
        return Ok(text);
    }
    for defaults in DEFAULTS {
        text.push_str(&format!("Defaults:{ACCOUNT} {defaults}\n"));
    }
    for rule in rules {
        text.push_str(&rule);
        text.push('\n');
    }
    Ok(text)
}

/// One rule for each command line, in order.
fn rules<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Result<Vec<String>, Failure> {
    let mut times: BTreeMap<Vec<String>, (u64, &Manifest)> = BTreeMap::new();
    for manifest in manifests {
        // A second more than it is given: agent-exec asks first, and says that it was ended because its time was over.
        let seconds = manifest.timeout_ms().div_ceil(1000) + 1;
        for line in manifest.command_lines() {
            if let Some((other, first)) = times.get(&line)
                && *other != seconds
            {
                return Err(Failure::Refused(format!(
                    "{} and {} both run `{}`, with different times: sudo would know only one; give both the same timeout_ms",
                    first.name(),
                    manifest.name(),
                    line.join(" ")
                )));
            }
            times.insert(line, (seconds, manifest));
        }
    }
    times
        .iter()
        .map(|(line, (seconds, manifest))| {
            let command = command(line).ok_or_else(|| {
                let name = manifest.name();
                Failure::Refused(format!("{name} runs {line:?}, which sudoers cannot express"))
            })?;
            Ok(format!(
                "{ACCOUNT} ALL = (root) TIMEOUT={seconds} NOPASSWD: NOSETENV: {command}"
            ))
        })
        .collect()
}

/// A command line as sudoers writes it; none for what it cannot express. Without arguments it would stand for any.
pub(crate) fn command(line: &[String]) -> Option<String> {
    let words: Option<Vec<String>> = line.iter().map(|word| escaped(word)).collect();
    let words = words?;
    match words.as_slice() {
        [] => None,
        [program] => Some(format!("{program} \"\"")),
        _ => Some(words.join(" ")),
    }
}

/// sudoers(5): `,`, `:`, `=` and `\` must be escaped in a command's arguments. The last is not let in here, nor is anything
/// else that could mean something.
fn escaped(word: &str) -> Option<String> {
    let mut text = String::with_capacity(word.len());
    for c in word.chars() {
        match c {
            ',' | ':' | '=' => text.extend(['\\', c]),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' | '/' | '@' | '%' | '+' => text.push(c),
            _ => return None,
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, timeout_ms: u64, argv: &str) -> Manifest {
        let text = format!(
            "name = \"{name}\"\ntitle = \"T\"\ndescription = \"D.\"\nrisk = \"change\"\ntimeout_ms = {timeout_ms}\nprivilege = \"sudo\"\n\
             [args]\nrequired = [\"unit\"]\nproperties.unit = {{ type = \"string\", enum = [\"a:1\", \"b\"] }}\n\
             [exec]\nprogram = \"/usr/bin/x\"\nargv = [{argv}]\n"
        );
        Manifest::parse(text.as_bytes()).unwrap()
    }

    fn lines(manifests: &[Manifest]) -> Vec<String> {
        rules(manifests.iter()).unwrap()
    }

    #[test]
    fn each_command_line_is_a_rule_with_its_time() {
        let found = lines(&[manifest("a", 1500, "\"--now=yes\", \"{unit}\"")]);
        assert_eq!(
            found,
            [
                "writ-exec ALL = (root) TIMEOUT=3 NOPASSWD: NOSETENV: /usr/bin/x --now\\=yes a\\:1",
                "writ-exec ALL = (root) TIMEOUT=3 NOPASSWD: NOSETENV: /usr/bin/x --now\\=yes b",
            ]
        );
    }

    /// Without this a rule for a program alone permits it with any arguments (sudoers(5)).
    #[test]
    fn a_command_without_arguments_permits_none() {
        assert_eq!(
            lines(&[manifest("a", 1000, "")]),
            ["writ-exec ALL = (root) TIMEOUT=2 NOPASSWD: NOSETENV: /usr/bin/x \"\""]
        );
    }

    #[test]
    fn two_actions_share_a_line_where_they_share_its_time() {
        assert_eq!(
            lines(&[manifest("a", 900, "\"go\""), manifest("b", 1000, "\"go\"")]).len(),
            1
        );
        let failure = rules([manifest("a", 900, "\"go\""), manifest("b", 1001, "\"go\"")].iter()).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(
            failure.to_string().contains("a and b both run `/usr/bin/x go`"),
            "{failure}"
        );
    }

    #[test]
    fn what_sudoers_cannot_express_is_refused() {
        for word in [
            "", "a b", "*", "?", "[a]", "!", "\\", "\"", "#", "a\nb", "é", "~", "^a$", "(", ")",
        ] {
            assert_eq!(escaped(word), None, "{word:?}");
            assert_eq!(command(&["/usr/bin/x".to_owned(), word.to_owned()]), None, "{word:?}");
        }
        assert_eq!(command(&[]), None);
    }

    /// The real thing reads it, and permits what is listed and nothing beside it.
    #[test]
    fn visudo_accepts_the_file() {
        assert!(
            Path::new(VISUDO).exists(),
            "sudo is missing: tests/harness/setup installs it"
        );
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut text = String::new();
        for defaults in DEFAULTS {
            text.push_str(&format!("Defaults:{ACCOUNT} {defaults}\n"));
        }
        for rule in lines(&[
            manifest(
                "a",
                1500,
                "\"--now=yes,no\", \"{unit}\", \"100%\", \"a@b\", \"+x\", \"./y_z\"",
            ),
            manifest("b", 1500, ""),
        ]) {
            text.push_str(&rule);
            text.push('\n');
        }
        visudo(&put("good", &text)).unwrap();
        let failure = visudo(&put("bad", &format!("{text}writ-exec ALL = (root) /usr/bin/x a:b\n"))).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
    }
}
