//! The keys of actions that have an effect: who must approve, how it is tried out and verified, whose rights it has.

use serde_json::{Map, Value};
use wire::Risk;

use super::exec::Template;
use super::read::{parsed, risk_of};
use super::{DryRun, Element, Exec, Privilege, VERIFY_WAIT_MS, Verify, privileged};
use crate::table::Table;
use crate::text;

/// Most lines that a privileged action's arguments may unfold into.
const MAX_PRIVILEGED: usize = 256;

/// The keys that only actions with an effect have.
pub(super) struct Effect {
    pub(super) approvals: u8,
    pub(super) approval_window_s: Option<u64>,
    pub(super) dry_run: Option<DryRun>,
    pub(super) verify: Option<Verify>,
    pub(super) privilege: Privilege,
}

/// Reads them; an action that only reads may have none of them.
pub(super) fn read(table: &mut Table<'_>, risk: Option<Risk>, exec: Option<&Exec>, template: &Template<'_>) -> Effect {
    let mut effect = Effect {
        approvals: 0,
        approval_window_s: None,
        dry_run: None,
        verify: None,
        privilege: Privilege::None,
    };
    if risk == Some(Risk::Read) {
        for key in ["approvals", "approval_window_s", "dry_run", "verify", "privilege"] {
            if table.take(key).is_some() {
                table.fault(key, "is for actions with risk change or destroy");
            }
        }
        return effect;
    }
    let most = wire::limits::APPROVAL_SIGS as u64;
    let before = table.faults().count();
    let approvals = table.integer("approvals", 0, most);
    if risk == Some(Risk::Destroy) && approvals.unwrap_or(0) == 0 && table.faults().count() == before {
        table.fault("approvals", "must be 1 or more for risk destroy");
    }
    effect.approvals = approvals.and_then(|number| u8::try_from(number).ok()).unwrap_or(0);
    let before = table.faults().count();
    effect.approval_window_s = table.integer("approval_window_s", 60, wire::limits::TASK_MAX_S);
    if effect.approvals > 0 {
        effect.approval_window_s = table.demand("approval_window_s", effect.approval_window_s, before);
    }
    let program = match exec {
        Some(Exec::Program { program, .. }) => program.to_str(),
        _ => None,
    };
    effect.dry_run = dry_run(table, risk, program, template);
    effect.verify = verify(table, template);
    effect.privilege = privilege(table, template, exec, effect.dry_run.as_ref());
    effect
}

fn dry_run(table: &mut Table<'_>, own: Option<Risk>, program: Option<&str>, template: &Template<'_>) -> Option<DryRun> {
    let mut table = table.table("dry_run")?;
    if program.is_none() {
        table.faults().add(table.path(), "needs a program in exec");
    }
    let argv = template.argv(&mut table, "argv", program);
    let risk = table
        .demand_string("risk")
        .and_then(|word| risk_of(&table, "risk", &word));
    if matches!(
        (risk, own),
        (Some(Risk::Destroy), _) | (Some(Risk::Change), Some(Risk::Change))
    ) {
        table.fault("risk", "must be less than the action's own");
    }
    table.finish();
    Some(DryRun { argv, risk: risk? })
}

fn verify(table: &mut Table<'_>, template: &Template<'_>) -> Option<Verify> {
    let mut table = table.table("verify")?;
    let action = table
        .demand_string("action")
        .and_then(|name| parsed(&table, "action", &name));
    let wait_ms = table
        .integer("wait_ms", 100, VERIFY_WAIT_MS.1)
        .unwrap_or(VERIFY_WAIT_MS.0);
    let mut args = Map::new();
    match table.take("args") {
        None => {}
        Some(toml::Value::Table(entries)) => {
            for (key, value) in entries {
                let value = match value {
                    toml::Value::String(text) => {
                        if let Some(name) = Template::placeholder(&text)
                            && template
                                .properties
                                .get(name)
                                .is_none_or(|property| !property.always_there())
                        {
                            table.fault("args", format!("{{{name}}} is not an argument that always has a value"));
                        }
                        Value::String(text)
                    }
                    toml::Value::Integer(number) => Value::from(number),
                    toml::Value::Boolean(value) => Value::Bool(value),
                    _ => {
                        table.fault(
                            "args",
                            format!("{} must be a string, an integer or a boolean", text::quoted(&key)),
                        );
                        continue;
                    }
                };
                args.insert(key, value);
            }
        }
        Some(_) => table.fault("args", "must be a table"),
    }
    table.finish();
    Some(Verify {
        action: action?,
        args,
        wait_ms,
    })
}

/// A privileged action's command lines are listed in sudoers one by one, so there must be finitely many, and few.
fn privilege(
    table: &mut Table<'_>,
    template: &Template<'_>,
    exec: Option<&Exec>,
    dry_run: Option<&DryRun>,
) -> Privilege {
    match table.string("privilege").as_deref() {
        None => return Privilege::None,
        Some("sudo") => {}
        Some(other) => {
            table.fault(
                "privilege",
                format!("must be \"sudo\" or left out, not \"{}\"", text::quoted(other)),
            );
            return Privilege::None;
        }
    }
    let mut lines = if dry_run.is_some() { 2_usize } else { 1 };
    for (name, property) in template.properties {
        match property.choices() {
            Some(choices) => {
                lines = lines.saturating_mul(choices.len());
                if let Some(word) = privileged::unfit(choices) {
                    table.fault("privilege", inexpressible(&word));
                }
            }
            None if template.files.contains_key(name) => {}
            None => table.fault("privilege", format!("needs an enum or const for the argument {name}")),
        }
    }
    if lines > MAX_PRIVILEGED {
        table.fault(
            "privilege",
            format!("unfolds into {lines} command lines, more than {MAX_PRIVILEGED}"),
        );
    }
    let argv = match exec {
        Some(Exec::Program { program, argv, .. }) => {
            if let Some(program) = program.to_str().filter(|program| !privileged::is_plain(program)) {
                table.fault("privilege", inexpressible(program));
            }
            argv.as_slice()
        }
        Some(Exec::Probe { .. }) => {
            table.fault("privilege", "needs a program in exec");
            &[]
        }
        None => &[],
    };
    for element in argv.iter().chain(dry_run.iter().flat_map(|dry_run| &dry_run.argv)) {
        match element {
            Element::Constant(word) if !privileged::is_plain(word) => table.fault("privilege", inexpressible(word)),
            Element::Constant(_) | Element::Argument(_) => {}
        }
    }
    Privilege::Sudo
}

fn inexpressible(word: &str) -> String {
    let wanted = "a word of a-z A-Z 0-9 - _ . / @ % + , : =, because sudoers lists it";
    format!("wants {wanted}, not \"{}\"", text::quoted(word))
}
