//! `writ-target explain ACTION`: in plain words, what an action reads, runs and may change, as whom, and for how long.
//!
//! It is put together from the manifest and `target.toml` of this target, which decide; nothing is run or looked up.

use std::path::Path;

use catalogue::{Element, Exec, Folder, Manifest, Privilege, Profile};
use serde_json::Value;
use wire::Risk;
use wire::ids::{ActionName, Digest};

use crate::config::Config;
use crate::{ACTIONS, CONFIG, Failure, files};

/// Longest configuration that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where the right column begins.
const COLUMN: usize = 11;

/// Explains one action of this target's own catalogue.
///
/// # Errors
/// [`Failure::Refused`] where there is no such action, or it or the configuration has faults.
pub fn run(action: &ActionName) -> Result<String, Failure> {
    let refused = |what: String| Failure::Refused(what);
    let folder = Folder::open(Path::new(ACTIONS), &[0]).map_err(|fault| refused(fault.to_string()))?;
    let entry = folder.load_one(action).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
        refused(format!(
            "{action} is not offered, its manifest has faults:\n{}",
            faults.join("\n")
        ))
    })?;
    let entry = entry.ok_or_else(|| {
        refused(format!(
            "there is no action {action} in {ACTIONS}: `writ-target catalogue lint` lists all"
        ))
    })?;
    let text = files::read_owned(Path::new(CONFIG), 0, 0o022, MAX_BYTES)?
        .ok_or_else(|| refused(format!("{CONFIG} is missing: install the target's package first")))?;
    let config = Config::parse(&text).map_err(|what| refused(format!("{CONFIG} is wrong: {what}")))?;
    Ok(explain(entry.manifest(), entry.digest(), &config))
}

/// The words.
#[must_use]
pub fn explain(manifest: &Manifest, digest: &Digest, config: &Config) -> String {
    let mut page = Page::default();
    page.line("", &format!("{}, on {}", manifest.title(), config.target));
    page.line("", manifest.description());
    page.line("", "");
    page.line("risk", risk(manifest.risk()));
    for (at, words) in arguments(manifest).iter().enumerate() {
        page.line(if at == 0 { "arguments" } else { "" }, words);
    }
    if manifest.schema().properties().is_empty() {
        page.line("arguments", "none");
    }
    reads(manifest, &mut page);
    runs(manifest, config, &mut page);
    changes(manifest, &mut page);
    as_whom(manifest, config, &mut page);
    bounds(manifest, &mut page);
    approvals(manifest, &mut page);
    page.line("manifest", &format!("{ACTIONS}/{}.toml, {digest}", manifest.name()));
    page.text.trim_end().to_owned()
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// A line with a title in the left column, if it has one.
    fn line(&mut self, title: &str, words: &str) {
        let line = if title.is_empty() && self.text.matches('\n').count() < 3 {
            words.to_owned()
        } else {
            format!("{title:<COLUMN$}{words}")
        };
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Read => "read: it changes nothing",
        Risk::Change => "change: what it does can be done again or undone",
        Risk::Destroy => "destroy: what it does cannot be undone",
    }
}

/// A line for each argument: its name, what it can be, and what it is for.
fn arguments(manifest: &Manifest) -> Vec<String> {
    let schema = manifest.input_schema();
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = schema["properties"].as_object();
    properties
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let pinned = manifest.files().get(name).is_some_and(|rule| rule.pin());
            let limits = if pinned {
                "a path, and the sha256 of what must be in it".to_owned()
            } else {
                limits(property)
            };
            let need = match property.get("default") {
                Some(default) => format!("{default} if left out"),
                None if required.contains(&name.as_str()) => "must be given".to_owned(),
                None => "may be left out".to_owned(),
            };
            let about = property["description"]
                .as_str()
                .map(|text| format!(". {text}"))
                .unwrap_or_default();
            format!("{name}: {limits}; {need}{about}")
        })
        .collect()
}

/// What one value can be.
fn limits(property: &Value) -> String {
    if let Some(value) = property.get("const") {
        return format!("always {value}");
    }
    if let Some(values) = property["enum"].as_array() {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        return format!("one of {}", values.join(", "));
    }
    let number = |key: &str| property[key].as_i64();
    match property["type"].as_str() {
        Some("integer") => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            (Some(least), None) => format!("a whole number from {least} on"),
            (None, Some(most)) => format!("a whole number up to {most}"),
            (None, None) => "a whole number".to_owned(),
        },
        Some("boolean") => "true or false".to_owned(),
        Some("array") => {
            let (least, most) = (number("minItems").unwrap_or(0), number("maxItems").unwrap_or(0));
            format!("{least} to {most} values, each {}", limits(&property["items"]))
        }
        _ => {
            let (least, most) = (number("minLength").unwrap_or(0), number("maxLength").unwrap_or(0));
            let pattern = property["pattern"]
                .as_str()
                .map(|pattern| format!(" that fits {pattern}"));
            format!("a text of {least} to {most} characters{}", pattern.unwrap_or_default())
        }
    }
}

fn reads(manifest: &Manifest, page: &mut Page) {
    if manifest.files().is_empty() {
        page.line("reads", "no file that the caller names");
    }
    for (name, rule) in manifest.files() {
        let folders: Vec<String> = rule
            .within()
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        page.line(
            "reads",
            &format!("the one file named by {name}, beneath {}", folders.join(" or ")),
        );
        page.line(
            "",
            "a regular file with one name, reached over no symbolic link and no other mount",
        );
        if rule.pin() {
            page.line("", "its content is copied, and must have the sha256 that was asked for");
        }
    }
    let besides = match (manifest.privilege(), manifest.profile()) {
        (Privilege::Sudo, _) => "besides, whatever root may read: it is not caged",
        (Privilege::None, Profile::Reader) => "besides, its own libraries: it opens nothing else by name",
        (Privilege::None, Profile::Tool) => "besides, everything that agent-runner may read",
    };
    page.line("", besides);
}

fn runs(manifest: &Manifest, config: &Config, page: &mut Page) {
    match manifest.exec() {
        Exec::Program { program, argv, stdin } => {
            let from = stdin
                .as_ref()
                .map(|name| format!("  (its standard input is {{{name}}})"))
                .unwrap_or_default();
            page.line("runs", &format!("{}{}{from}", program.display(), words(argv)));
            page.line(
                "",
                "directly, without a shell; each {name} is one whole word, and begins with neither - nor @",
            );
            if let Some(dry_run) = manifest.dry_run() {
                page.line("dry run", &format!("{}{}", program.display(), words(&dry_run.argv)));
            }
        }
        Exec::Probe { argument } => {
            page.line(
                "runs",
                &format!("the probe of target.toml that {argument} names, without a shell:"),
            );
            for (name, probe) in &config.probe {
                let argv: String = probe.argv().iter().map(|word| format!(" {}", shown(word))).collect();
                let seconds = seconds(probe.timeout_ms());
                page.line("", &format!("  {name}: {}{argv}  (at most {seconds})", probe.program()));
            }
            if config.probe.is_empty() {
                page.line("", "  none is defined here");
            }
        }
    }
}

/// An argv template as one would type it.
fn words(argv: &[Element]) -> String {
    argv.iter()
        .map(|element| match element {
            Element::Constant(word) => format!(" {}", shown(word)),
            Element::Argument(name) => format!(" {{{name}}}"),
        })
        .collect()
}

/// A word, in quotes where it would not read as one.
fn shown(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '\''));
    if plain { word.to_owned() } else { format!("{word:?}") }
}

fn changes(manifest: &Manifest, page: &mut Page) {
    let words = match (manifest.privilege(), manifest.profile()) {
        (Privilege::Sudo, _) => "whatever the program changes: it runs with sudo's rights, outside of any cage",
        (Privilege::None, Profile::Reader) => "nothing: it writes no file and has no network (profile reader)",
        (Privilege::None, Profile::Tool) => {
            "files below /tmp and /var/tmp, and what it reaches over the network, where it can connect (profile tool)"
        }
    };
    page.line("changes", words);
    if let Some(verify) = manifest.verify() {
        page.line("", &format!("afterwards {} tells whether it came about", verify.action));
    }
}

fn as_whom(manifest: &Manifest, config: &Config, page: &mut Page) {
    match manifest.privilege() {
        Privilege::None => {
            let (uid, gid) = (config.runner_uid, config.runner_gid);
            page.line(
                "as",
                &format!("agent-runner (uid {uid}, gid {gid}), in no other group, and can gain no rights"),
            );
        }
        Privilege::Sudo => {
            let uid = config.exec_uid;
            page.line(
                "as",
                &format!("root, by sudo, from writ-exec (uid {uid}); sudoers lists every command line"),
            );
        }
    }
}

fn bounds(manifest: &Manifest, page: &mut Page) {
    let (limits, time) = (manifest.limits(), seconds(manifest.timeout_ms()));
    page.line(
        "for",
        &match manifest.privilege() {
            Privilege::None => format!("at most {time}; then it is ended, and all that it started"),
            Privilege::Sudo => {
                format!("at most {time}; then sudo ends it, but not what it may have left to run by itself")
            }
        },
    );
    page.line(
        "with",
        &format!(
            "at most {} s of CPU and {} of memory a process, {} processes, {} open files",
            limits.cpu_s,
            size(limits.memory_bytes),
            limits.processes,
            limits.open_files
        ),
    );
    if limits.file_bytes > 0 && manifest.profile() == Profile::Tool {
        page.line(
            "",
            &format!("no file that it writes gets longer than {}", size(limits.file_bytes)),
        );
    }
    page.line(
        "answers",
        &format!(
            "at most {}; the rest is counted and hashed",
            size(manifest.output_bytes())
        ),
    );
}

fn approvals(manifest: &Manifest, page: &mut Page) {
    let words = match manifest.approvals() {
        0 => "none by this manifest; the CA's policy may ask for some".to_owned(),
        number => {
            let people = if number == 1 {
                "1 person".to_owned()
            } else {
                format!("{number} people")
            };
            let window = manifest
                .approval_window_s()
                .map(|window| format!(" within {window} s"))
                .unwrap_or_default();
            format!("{people} must sign{window}, and none of them is who asked")
        }
    };
    page.line("approvals", &words);
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{} s", ms / 1000)
    } else {
        format!("{ms} ms")
    }
}

fn size(bytes: u64) -> String {
    [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes} bytes"),
            |(unit, name)| format!("{} {name}", bytes / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(manifest: &str) -> String {
        let config = Config::parse(include_str!("../../../deploy/target/target.toml.example")).unwrap();
        let parsed = Manifest::parse(manifest.as_bytes()).unwrap();
        explain(&parsed, &Manifest::digest(manifest.as_bytes()), &config)
    }

    #[test]
    fn a_log_is_tailed_in_plain_words() {
        let page = explained(include_str!("../../../proto/catalogue/actions.d/tail_log.toml"));
        for line in [
            "Tail a log, on web-1\nLast lines of a log file below an allowed directory.\n\nrisk       read: it changes nothing\n",
            "lines: a whole number from 1 to 5000; 50 if left out. How many lines from the end.\n",
            "path: a text of 1 to 4096 characters; must be given. Absolute path of the log file.\n",
            "reads      the one file named by path, beneath /var/log\n",
            "runs       /usr/libexec/writ/inspect tail -n {lines}  (its standard input is {path})\n",
            "changes    nothing",
            "as         agent-runner (uid 990, gid 990)",
            "for        at most 10 s;",
            "answers    at most 256 KiB;",
            "approvals  none by this manifest",
            "manifest   /etc/writ/actions.d/tail_log.toml, ",
        ] {
            assert!(page.contains(line), "{line:?} is not in\n{page}");
        }
    }

    #[test]
    fn probes_are_listed_with_what_they_run() {
        let page = explained(include_str!("../../../proto/catalogue/actions.d/check_health.toml"));
        for line in [
            "arguments  probe: a text of 0 to 63 characters that fits ^[a-z]",
            "reads      no file that the caller names\n           besides, everything that agent-runner may read\n",
            "changes    files below /tmp and /var/tmp",
            "  ssh: /usr/libexec/writ/inspect tcp 127.0.0.1 22  (at most 1 s)\n",
            "  root-disk: /usr/libexec/writ/inspect disk / 10  (at most 1 s)\n",
        ] {
            assert!(page.contains(line), "{line:?} is not in\n{page}");
        }
    }

    #[test]
    fn an_action_that_destroys_says_so_and_who_must_sign() {
        let page = explained(
            "name = \"drop_table\"\ntitle = \"Drop\"\ndescription = \"Drops it.\"\nrisk = \"destroy\"\ntimeout_ms = 1500\n\
             approvals = 2\napproval_window_s = 600\nprivilege = \"sudo\"\n\
             [args]\nrequired = [\"table\"]\nproperties.table = { type = \"string\", enum = [\"a\", \"b\"] }\n\
             [exec]\nprogram = \"/usr/bin/dropper\"\nargv = [\"now\", \"{table}\"]\n\
             [dry_run]\nargv = [\"not\", \"{table}\"]\nrisk = \"read\"\n",
        );
        for line in [
            "risk       destroy: what it does cannot be undone\n",
            "table: one of \"a\", \"b\"; must be given\n",
            "runs       /usr/bin/dropper now {table}\n",
            "dry run    /usr/bin/dropper not {table}\n",
            "changes    whatever the program changes",
            "as         root, by sudo",
            "for        at most 1500 ms",
            "approvals  2 people must sign within 600 s",
        ] {
            assert!(page.contains(line), "{line:?} is not in\n{page}");
        }
    }

    #[test]
    fn sizes_are_said_in_the_largest_unit_that_fits() {
        for (bytes, said) in [
            (1000, "1000 bytes"),
            (1 << 16, "64 KiB"),
            (3 << 20, "3 MiB"),
            (1 << 30, "1 GiB"),
        ] {
            assert_eq!(size(bytes), said);
        }
    }
}
