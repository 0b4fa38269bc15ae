//! Policies that are refused when they are read.

use super::*;

/// Everything that a policy can get wrong in a way that is seen when it is read. REQ-POLICY-2
#[test]
fn a_policy_that_does_not_fit_is_refused_when_it_is_read() {
    let permit = |condition: &str| format!("permit(principal, action, resource) when {{ {condition} }};");
    let of_tail = |condition: &str| {
        format!("@id(\"x\") forbid(principal, action == Action::\"tail_log\", resource) when {{ {condition} }};")
    };
    let scope = |scope: &str| format!("forbid({scope});");
    let noted = |annotation: &str| format!("{annotation} permit(principal, action, resource);");
    let table: Vec<(&str, String, &str)> = vec![
        (
            "no Cedar",
            "permit(principal, action, resource)".into(),
            "unexpected end of input",
        ),
        ("no UTF-8", String::new(), "not UTF-8"),
        (
            "a template",
            scope("principal == ?principal, action, resource"),
            "template",
        ),
        (
            "two of one id",
            format!("{0}{0}", noted("@id(\"a\")")),
            "two policies have this id",
        ),
        (
            "an unknown action",
            scope("principal, action == Action::\"tail_lgo\", resource"),
            "did you mean `Action::\"tail_log\"`?",
        ),
        (
            "an action of another script",
            scope("principal, action == Action::\"t\u{430}il_log\", resource"),
            "unrecognized action",
        ),
        (
            "an action of another case",
            scope("principal, action == Action::\"Tail_log\", resource"),
            "unrecognized action",
        ),
        (
            "an unknown action in a list",
            scope("principal, action in [Action::\"tail_log\", Action::\"x\"], resource"),
            "the CA's catalogue has check_health, ",
        ),
        (
            "an unknown action in a condition",
            permit("action == Action::\"rm_rf\""),
            "rm_rf",
        ),
        (
            "an unknown type",
            scope("principal == User::\"alice\", action, resource"),
            "User",
        ),
        (
            "another namespace",
            scope("principal == X::Person::\"alice\", action, resource"),
            "X::Person",
        ),
        (
            "an unknown group",
            scope("principal in Group::\"admins\", action, resource"),
            "admins",
        ),
        (
            "a group of another case",
            scope("principal in Group::\"Persons\", action, resource"),
            "Persons",
        ),
        (
            "a person of another script",
            scope("principal == Person::\"\u{430}lice\", action, resource"),
            "is the name of no person",
        ),
        (
            "a person of another case",
            scope("principal == Person::\"Alice\", action, resource"),
            "is the name of no person",
        ),
        (
            "a person with a space",
            permit("principal == Person::\"alice \""),
            "is the name of no person",
        ),
        (
            "a target of another script",
            scope("principal, action, resource == Target::\"we\u{432}-1\""),
            "is the name of no target",
        ),
        (
            "an unknown label, asked for",
            permit("resource.labels has enviroment"),
            "there are a.b/c, env",
        ),
        (
            "an unknown label, not asked for",
            permit("!(resource.labels has enviroment && resource.labels.enviroment == \"prod\")"),
            "enviroment",
        ),
        (
            "an unknown label, read",
            permit("resource.labels.enviroment == \"prod\""),
            "enviroment",
        ),
        (
            "an unknown label, in brackets",
            permit("resource.labels has \"e\u{43d}v\""),
            "no target, of the labels",
        ),
        (
            "a label that is not asked for",
            permit("resource.labels.env == \"prod\""),
            "has",
        ),
        (
            "a label that is a number",
            permit("resource.labels has env && resource.labels.env == 1"),
            "Long",
        ),
        (
            "something of a target",
            permit("resource has env"),
            "a target has no `env`",
        ),
        (
            "something of a person",
            permit("principal has team"),
            "a person has no `team`",
        ),
        ("unknown context", permit("context has shift"), "context has no `shift`"),
        ("unknown context, read", permit("context.shift == \"night\""), "shift"),
        ("an unknown argument", of_tail("context.args.pth == \"x\""), "pth"),
        (
            "an unknown argument, asked for",
            of_tail("context.args has pth && context.args.pth == \"x\""),
            "there are lines, path",
        ),
        (
            "an unknown argument, asked for at once",
            of_tail("context has args.pth"),
            "pth",
        ),
        (
            "an argument of another action",
            of_tail("context.args has tags"),
            "tags",
        ),
        (
            "an argument that not every action has",
            permit("context.args.path == \"x\""),
            "path",
        ),
        (
            "an argument that may be left out",
            "permit(principal, action == Action::\"wide\", resource) when { context.args.note == \"x\" };".into(),
            "note",
        ),
        (
            "an argument of another type",
            of_tail("context.args.lines == \"5\""),
            "String",
        ),
        (
            "a path that is a number",
            of_tail("context.args.path > 3"),
            "expected Long but saw String",
        ),
        (
            "a risk that is none",
            permit("context.risk == \"destory\""),
            "\"destory\" is no risk; write one of read, change, destroy",
        ),
        (
            "a risk that is none, the other way",
            permit("\"Read\" != context.risk"),
            "\"Read\" is no risk",
        ),
        (
            "a risk that is none, in a list",
            permit("[\"change\", \"destory\"].contains(context.risk)"),
            "destory",
        ),
        ("a mode that is none", permit("context.mode == \"dry-run\""), "no mode"),
        (
            "a proof that is none",
            permit("context.proof == \"relay \""),
            "no proof",
        ),
        (
            "a relay of another script",
            permit("context.relay == \"r\u{435}lay-1\""),
            "is the name of no relay",
        ),
        (
            "a time that is text",
            permit("context.time == \"2027-01-15\""),
            "datetime",
        ),
        (
            "a time that is none",
            permit("context.time > datetime(\"tomorrow\")"),
            "tomorrow",
        ),
        (
            "a count that is none",
            permit("context.counts.certificates < 3"),
            "certificates",
        ),
        ("an age that is text", permit("context.task_age_s < \"3\""), "Long"),
        ("an empty set", permit("[].contains(context.risk)"), "empty set"),
        (
            "a mistyped annotation",
            noted("@approval(\"2\")"),
            "there is no annotation @approval",
        ),
        ("no approvals", noted("@approvals(\"0\")"), "@approvals"),
        ("too many approvals", noted("@approvals(\"9\")"), "@approvals"),
        ("approvals beyond a byte", noted("@approvals(\"258\")"), "@approvals"),
        ("approvals in words", noted("@approvals(\"two\")"), "@approvals"),
        ("approvals with a sign", noted("@approvals(\"+2\")"), "@approvals"),
        ("approvals with a space", noted("@approvals(\" 2\")"), "@approvals"),
        ("approvals with a zero", noted("@approvals(\"02\")"), "@approvals"),
        (
            "approvals of another script",
            noted("@approvals(\"\u{662}\")"),
            "@approvals",
        ),
        ("approvals without a number", noted("@approvals"), "@approvals"),
        (
            "approvals twice",
            noted("@approvals(\"1\") @approvals(\"2\")"),
            "annotation",
        ),
        (
            "approvals on a forbid",
            "@approvals(\"1\") forbid(principal, action, resource);".into(),
            "move it to the permit",
        ),
        ("an empty id", noted("@id(\"\")"), "@id"),
        ("an id of another script", noted("@id(\"shipped-r\u{435}ads\")"), "@id"),
        ("an id of two lines", noted("@id(\"a\\nb\")"), "@id"),
        (
            "an id that is long",
            noted(&format!("@id(\"{}\")", "a".repeat(64))),
            "@id",
        ),
        (
            "another's own name",
            format!("@id(\"policy1\") {0} {0}", "permit(principal, action, resource);"),
            "two policies have this id",
        ),
        (
            "an override in a comment",
            format!("// \u{202e}\n{}", permit("true")),
            "line 1: a character that is not shown, \\\\u{202e}",
        ),
        (
            "a zero width space in a name",
            scope("principal == Person::\"ali\u{200b}ce\", action, resource"),
            "not shown",
        ),
        (
            "a carriage return",
            "permit(principal, action, resource);\r// forbid".into(),
            "not shown",
        ),
        ("too long", " ".repeat(MAX_BYTES + 1), "longer than"),
    ];
    for (name, text, part) in &table {
        let bytes = if *name == "no UTF-8" {
            vec![0xff]
        } else {
            text.clone().into_bytes()
        };
        let faults = Policy::load(&bytes, &world()).map(drop).expect_err(name);
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let said = said.join("\n");
        assert!(said.contains(part), "{name}: {part} not in:\n{said}");
        assert!(
            said.lines()
                .all(|line| line.bytes().all(|b| (b' '..=b'~').contains(&b))),
            "{name}: {said}"
        );
        if !["no UTF-8", "too long"].contains(name) {
            assert!(said.starts_with("line "), "{name}: {said}");
        }
    }
    println!("{0} attacks, {0} refused", table.len());
}

#[test]
fn every_fault_is_told_with_its_line_and_policy() {
    let said = load(
        "// one\n@id(\"one\")\npermit(principal, action == Action::\"x\", resource);\n\n@id(\"two\") @approvals(\"x\")\npermit(principal, action, resource)\nwhen {\n  resource.labels.env == \"x\"\n};\n",
    )
    .map(drop)
    .unwrap_err();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("line 3, policy one: unrecognized action"),
        "{said}"
    );
    assert!(
        lines[1].starts_with("line 5, policy two: @approvals is no number"),
        "{said}"
    );
    assert!(lines[2].starts_with("line 8, policy two: "), "{said}");
}
