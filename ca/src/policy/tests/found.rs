//! What the owner of a policy is told to look at, and what may be spoken of.

use super::*;

/// REQ-POLICY-7
#[test]
fn what_is_most_likely_not_meant_is_found() {
    let found = |text: &str| {
        let findings = policy(text).findings(&world());
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let scoped = |condition: &str| {
        format!("@id(\"x\") forbid(principal, action == Action::\"tail_log\", resource) when {{ {condition} }};")
    };
    for (text, part) in [
        (scoped("false"), "it can never match"),
        (scoped("context.args.lines > 5 && resource.labels has env && false"), "it can never match"),
        (scoped("principal is Target"), "it can never match"),
        ("@id(\"x\") forbid(principal, action, resource == Person::\"alice\");".into(), "it can never match"),
        (scoped("action == Action::\"wide\""), "it can never match"),
        ("@id(\"x\") permit(principal, action, resource);".into(), "it allows everybody everything everywhere"),
        ("@id(\"x\") permit(principal in Group::\"persons\", action, resource is Target) when { true };".into(), "it allows everybody"),
        ("@id(\"x\") permit(principal is Person, action, resource) unless { !(context has risk) };".into(), "it allows everybody"),
        (
            "@id(\"x\") forbid(principal, action, resource) when { context.args has encoding && context.args.encoding == \"b\u{430}se64\" };".into(),
            "no action of this policy takes \"b\\u{430}se64\" as `encoding`; write one of \"base64\", \"text\"",
        ),
        (
            "@id(\"x\") forbid(principal, action == Action::\"wide\", resource) when { [false].contains(context.args.follow) || [\"b\"].contains(context.args.size) };".into(),
            "no action of this policy takes \"b\" as `size`; write one of \"large\", \"small\"",
        ),
        (scoped("context.args.lines * 9223372036854775807 == 1"), "`*` can go beyond 64 bits"),
        (scoped("-context.args.lines - 9223372036854775807 == 1"), "`-` can go beyond 64 bits"),
        (scoped("Target::\"web-1\".labels has env"), "\"web-1\" is looked at"),
        (scoped("principal == Person::\"mallory\""), "there is no person \"mallory\" in ca.toml"),
        (scoped("resource == Target::\"db-9\""), "there is no target \"db-9\" in the CA's inventory"),
        (scoped("context.relay == \"relay-9\""), "there is no relay \"relay-9\" in ca.toml"),
        (scoped("context.args.path == \"/var/log/\u{455}yslog\""), "look like others"),
        ("permit(principal, action == Action::\"wide\", resource);".into(), "it has no @id"),
    ] {
        let said = found(&text);
        assert!(said.contains(part), "{part} not in {said:?} of {text}");
        assert!(said.starts_with("line 1, policy "), "{said}");
    }
    for fine in [
        SHIPPED.to_owned(),
        scoped("context.args.lines + 1 > 5 && context.args.lines * 1000 > 3"),
        scoped("context.time.offset(duration(\"2h\")).toTime() > duration(\"22h\") || context.weekday > 5"),
        "@id(\"x\") permit(principal, action, resource) when { resource.labels has env };".to_owned(),
        "@id(\"x\") forbid(principal, action, resource);".to_owned(),
        // All of them, and each was meant.
        "@id(\"x\") permit(principal, action in [Action::\"tail_log\", Action::\"read_file\", Action::\"check_health\", Action::\"wide\"], resource);".to_owned(),
        scoped("context.args.path == \"/var/log/x\""),
        "@id(\"x\") forbid(principal, action == Action::\"wide\", resource) when { context.args.size == \"small\" || context.args.follow == true };".to_owned(),
        "@id(\"x\") permit(principal, action, resource == Target::\"web-1\");".to_owned(),
        "@id(\"x\") @description(\"why\") permit(principal == Person::\"alice\", action, resource);".to_owned(),
    ] {
        assert_eq!(found(&fine), "", "{fine}");
    }
}

/// REQ-POLICY-2
#[test]
fn the_schema_says_what_there_is() {
    let text = schema::text(&world()).unwrap();
    for part in [
        "entity Person in [Group]",
        "action \"tail_log\"",
        "\"a.b/c\"?: ",
        "task_age_s",
        "note?: ",
        "datetime",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    let again: Result<cedar_policy::Schema, _> = text.parse();
    assert!(again.is_ok(), "Cedar reads it");
}
