//! A manifest from its first key to its last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use wire::Risk;
use wire::ids::ActionName;

use super::exec::Template;
use super::{FileRule, MAX_BYTES, MAX_TIMEOUT_MS, Manifest, Profile, effect, exec, limits};
use crate::fault::Faults;
use crate::schema::{Kind, Property, Schema, check_shown};
use crate::table::Table;
use crate::text;

/// Reads a manifest's bytes. Nothing comes back where a part that must be there is missing or wrong.
pub(super) fn manifest(bytes: &[u8], faults: &Faults) -> Option<Manifest> {
    if bytes.len() > MAX_BYTES {
        faults.add("", format!("has more than {MAX_BYTES} bytes"));
        return None;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        faults.add("", "is not UTF-8");
        return None;
    };
    let mut table = Table::read(text, faults)?;
    let name: Option<ActionName> = table
        .demand_string("name")
        .and_then(|name| parsed(&table, "name", &name));
    let title = shown(&mut table, "title", 80);
    let description = shown(&mut table, "description", 1000);
    let risk = table
        .demand_string("risk")
        .and_then(|word| risk_of(&table, "risk", &word));
    let timeout_ms = table.demand_integer("timeout_ms", 1, MAX_TIMEOUT_MS);
    let files = files(&mut table);
    let pinned: BTreeSet<&str> = files
        .iter()
        .filter(|(_, rule)| rule.pin)
        .map(|(name, _)| name.as_str())
        .collect();
    let (properties, schema) = Schema::read(table.table("args"), &pinned, faults);
    check_files(&files, &properties, faults);
    let template = Template {
        properties: &properties,
        files: &files,
    };
    let exec = exec::read(&mut table, &template);
    // Nothing stands around root's process, so a manifest must not say that something does.
    let caged = !table.has("privilege");
    if !caged && table.has("sandbox") {
        table.fault("sandbox", "does not go with privilege: what runs as root is not caged");
    }
    let profile = profile(&mut table);
    let limits = limits::read(&mut table, if caged { profile } else { Profile::Tool });
    let effect = effect::read(&mut table, risk, exec.as_ref().map(|(exec, _)| exec), &template);
    table.finish();
    let (exec, output) = exec?;
    Some(Manifest {
        name: name?,
        title: title?,
        description: description?,
        risk: risk?,
        timeout_ms: timeout_ms?,
        schema: schema?,
        files,
        exec,
        output,
        limits,
        profile,
        approvals: effect.approvals,
        approval_window_s: effect.approval_window_s,
        dry_run: effect.dry_run,
        verify: effect.verify,
        privilege: effect.privilege,
    })
}

/// A text of a known shape.
pub(super) fn parsed<T: FromStr>(table: &Table<'_>, key: &str, text: &str) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            table.fault(key, format!("failed to {error}"));
            None
        }
    }
}

fn shown(table: &mut Table<'_>, key: &str, longest: usize) -> Option<String> {
    let found = table.demand_string(key)?;
    check_shown(table, key, &found, longest);
    Some(found)
}

/// A risk's word.
pub(super) fn risk_of(table: &Table<'_>, key: &str, word: &str) -> Option<Risk> {
    match word {
        "read" => Some(Risk::Read),
        "change" => Some(Risk::Change),
        "destroy" => Some(Risk::Destroy),
        other => {
            table.fault(
                key,
                format!("must be read, change or destroy, not \"{}\"", text::quoted(other)),
            );
            None
        }
    }
}

/// `[file.NAME]`.
fn files(table: &mut Table<'_>) -> BTreeMap<String, FileRule> {
    let mut found = BTreeMap::new();
    for (name, mut rule) in table.table("file").map(Table::tables).unwrap_or_default() {
        let within = rule.strings("within").unwrap_or_default();
        if within.is_empty() {
            rule.fault("within", "must name at least one directory");
        }
        for directory in &within {
            if !text::is_plain_path(directory) {
                let wanted = "must hold absolute directories below /, without . or .. or a slash at the end";
                rule.fault("within", format!("{wanted}, not \"{}\"", text::quoted(directory)));
            }
        }
        let pin = rule.boolean("pin").unwrap_or(false);
        rule.finish();
        found.insert(
            name,
            FileRule {
                within: within.into_iter().map(PathBuf::from).collect(),
                pin,
            },
        );
    }
    found
}

fn check_files(files: &BTreeMap<String, FileRule>, properties: &BTreeMap<String, Property>, faults: &Faults) {
    for name in files.keys() {
        let path = format!("file.{}", text::quoted(name));
        match properties.get(name) {
            None => faults.add(path, "is not an argument in args.properties"),
            Some(property) if property.kind() != Kind::String => {
                faults.add(path, "must be a string in args.properties")
            }
            Some(property) if !property.always_there() => faults.add(path, "must be in args.required"),
            Some(_) => {}
        }
    }
}

/// `[sandbox]`; the narrowest where nothing is said.
fn profile(table: &mut Table<'_>) -> Profile {
    let Some(mut sandbox) = table.table("sandbox") else {
        return Profile::Reader;
    };
    let profile = match sandbox.string("profile").as_deref() {
        None | Some("reader") => Profile::Reader,
        Some("tool") => Profile::Tool,
        Some(other) => {
            sandbox.fault(
                "profile",
                format!("must be reader or tool, not \"{}\"", text::quoted(other)),
            );
            Profile::Reader
        }
    };
    sandbox.finish();
    profile
}
