//! The relay's mode and its deny rules: they win over whatever the CA would say, however they are asked around.

use catalogue::{Catalogue, Inventory};
use relay::config::{Config, Fault};
use relay::rules::{Known, Rules};
use serde_json::{Value, json};

use crate::client::Client;
use crate::target::Manner;
use crate::world::{ALICE, BOB, World};

const EXAMPLE: &str = include_str!("../../../deploy/relay/relay.toml");

/// Rules that are read as `relay.toml` is; each fault with its words. The text stands before the tables of the example.
pub(crate) fn rules(text: &str, inventory: &Inventory, catalogue: &Catalogue) -> Result<Rules, Vec<String>> {
    of_file(&format!("{text}\n{EXAMPLE}"), inventory, catalogue)
}

fn of_file(text: &str, inventory: &Inventory, catalogue: &Catalogue) -> Result<Rules, Vec<String>> {
    let words = |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let config = Config::parse(text.as_bytes()).map_err(words)?;
    let known = Known {
        persons: &[(ALICE, "alice".parse().unwrap()), (BOB, "bob".parse().unwrap())],
        inventory,
        catalogue,
    };
    Rules::new(config.mode, config.deny, &known).map_err(words)
}

/// Inline, so that they stand before the tables of the example.
const RULES: &str = r#"
deny = [
    { id = "no-db", why = "the database team restarts its own", targets = "web-1", actions = "restart_service", args = { unit = ["shop-db", "shop"] } },
    { id = "no-secrets", actions = ["tail_log", "read_file"], args = { path = { beneath = ["/var/log/secret", "/var/log/auth.log"] } } },
    { id = "bob-looks", persons = "bob", risk = ["change", "destroy"] },
    { id = "not-there", persons = ["alice", "bob"], targets = "denied-1" },
    { id = "zone-b", labels = { env = "test", zone = ["b"] }, brains = "test" },
    { id = "no-prod", actions = "label_host", args = { label = { starts_with = "Prod" } } },
    { id = "no-owner", actions = "label_host", args = { owner = "root", number = 7 } },
    { id = "no-units", actions = "label_host", args = { units = "shop-db", force = true } },
    { id = "no-etc", actions = "label_host", args = { place = { starts_with = "/etc/" } } },
]
"#;

async fn ruled() -> World {
    let mut world = World::new(Manner::Says("done\n".into())).await;
    world.rule(RULES);
    world
}

fn act(action: &str, args: Value) -> Value {
    json!({ "action": action, "target": "web-1", "reason": "why", "args": args })
}

fn read(path: &str) -> Value {
    json!({ "target": "web-1", "path": path, "reason": "why" })
}

/// What was asked of anybody else, and what was recorded of it.
async fn judge(world: &World, client: &mut Client, name: &str, tool: &str, arguments: Value, rule: &str) {
    let before = world.records().len();
    let (said, is_error) = client.call(tool, arguments.clone()).await;
    assert!(is_error, "{name}: {said}");
    assert_eq!(
        (&said["code"], &said["refused_by"], &said["policy"], &said["retryable"]),
        (&json!("policy_denied"), &json!("relay"), &json!([rule]), &json!(false)),
        "{name}: {said}"
    );
    let (message, next) = (said["message"].as_str().unwrap(), said["next"].as_str().unwrap());
    assert!(
        message.contains(rule) && next.contains(rule) && next.ends_with('.'),
        "{name}: {said}"
    );
    let records = world.records();
    assert_eq!(records.len(), before + 1, "{name}: one record");
    let record = records.last().unwrap();
    assert_eq!(
        (
            &record["event"],
            &record["decision"],
            &record["code"],
            &record["policy"],
            &record["seq"]
        ),
        (
            &json!("refused"),
            &json!("deny"),
            &json!("policy_denied"),
            &json!([rule]),
            &said["record"]
        ),
        "{name}: {record}"
    );
}

/// REQ-DENY-1, REQ-DENY-2, REQ-DENY-3, REQ-DENY-4, REQ-DENY-7. The same rules, asked around in every way that a brain has.
#[tokio::test]
async fn a_deny_rule_is_not_asked_around() {
    let world = ruled().await;
    let mut alice = world.client(ALICE).await;
    let mut bob = world.client(BOB).await;
    // A task that was opened for something harmless is no way in.
    let open = json!({ "reason": "why", "targets": ["web-1"] });
    let (task, _) = alice.call("open_task", open).await;
    let in_task = |mut call: Value| {
        call["task_id"] = task["task_id"].clone();
        call.as_object_mut().unwrap().remove("reason");
        call
    };
    let own = |more: Value| {
        let mut call = json!({ "target": "web-1", "reason": "why" });
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call
    };
    let trial = |mut call: Value| {
        call["mode"] = "dry_run".into();
        call
    };
    let attacks = [
        ("plainly", "restart_service", own(json!({ "unit": "shop-db" })), "no-db"),
        (
            "by run_action",
            "run_action",
            act("restart_service", json!({ "unit": "shop-db" })),
            "no-db",
        ),
        ("by the default", "restart_service", own(json!({})), "no-db"),
        (
            "by the default, by run_action",
            "run_action",
            act("restart_service", json!({})),
            "no-db",
        ),
        (
            "without args",
            "run_action",
            json!({ "action": "restart_service", "target": "web-1", "reason": "why" }),
            "no-db",
        ),
        (
            "in a task that is open",
            "restart_service",
            in_task(own(json!({ "unit": "shop-db" }))),
            "no-db",
        ),
        (
            "without a reason",
            "restart_service",
            json!({ "target": "web-1", "unit": "shop-db" }),
            "no-db",
        ),
        (
            "tried out",
            "restart_service",
            trial(own(json!({ "unit": "shop-db" }))),
            "no-db",
        ),
        (
            "tried out, by run_action",
            "run_action",
            trial(act("restart_service", json!({}))),
            "no-db",
        ),
        ("a path", "tail_log", read("/var/log/secret/x"), "no-secrets"),
        ("the folder itself", "tail_log", read("/var/log/secret"), "no-secrets"),
        (
            "by the other action",
            "read_file",
            read("/var/log/secret/x"),
            "no-secrets",
        ),
        (
            "by run_action",
            "run_action",
            act("tail_log", json!({ "path": "/var/log/secret/x" })),
            "no-secrets",
        ),
        (
            "a file that is named",
            "tail_log",
            read("/var/log/auth.log"),
            "no-secrets",
        ),
        (
            "a slash at the end",
            "tail_log",
            read("/var/log/auth.log/"),
            "no-secrets",
        ),
        ("a doubled slash", "tail_log", read("/var/log//secret/x"), "no-secrets"),
        (
            "a doubled slash first",
            "tail_log",
            read("//var/log/secret/x"),
            "no-secrets",
        ),
        ("a dot", "tail_log", read("/var/log/./secret/x"), "no-secrets"),
        ("two dots", "tail_log", read("/var/log/shop/../secret/x"), "no-secrets"),
        (
            "two dots at the end",
            "tail_log",
            read("/var/log/secret/x/.."),
            "no-secrets",
        ),
        ("another case", "tail_log", read("/var/log/SECRET/x"), "no-secrets"),
        ("a space", "tail_log", read("/var/log/secret /x"), "no-secrets"),
        (
            "a character that is not shown",
            "tail_log",
            read("/var/log/sec\u{200b}ret/x"),
            "no-secrets",
        ),
        (
            "a text that begins so",
            "run_action",
            act("label_host", json!({ "label": "Prod-1" })),
            "no-prod",
        ),
        (
            "in lower case",
            "run_action",
            act("label_host", json!({ "label": "prod-1" })),
            "no-prod",
        ),
        (
            "behind a space",
            "run_action",
            act("label_host", json!({ "label": " Prod-1" })),
            "no-prod",
        ),
        (
            "behind what is not shown",
            "run_action",
            act("label_host", json!({ "label": "\u{2060}p\u{ad}rod" })),
            "no-prod",
        ),
        (
            "with the letter of a degree",
            "run_action",
            act("label_host", json!({ "label": "PROD\u{212a}" })),
            "no-prod",
        ),
        (
            "an owner",
            "run_action",
            act("label_host", json!({ "owner": "root", "number": 7 })),
            "no-owner",
        ),
        (
            "an owner that is left out",
            "run_action",
            act("label_host", json!({ "number": 7 })),
            "no-owner",
        ),
        (
            "one of a list",
            "run_action",
            act("label_host", json!({ "units": ["cron", "shop-db"], "force": true })),
            "no-units",
        ),
        (
            "an empty list",
            "run_action",
            act("label_host", json!({ "units": [], "force": true })),
            "no-units",
        ),
        (
            "a text that is a path",
            "run_action",
            act("label_host", json!({ "place": "/etc/passwd" })),
            "no-etc",
        ),
        (
            "another spelling of one",
            "run_action",
            act("label_host", json!({ "place": "/srv/../etc/passwd" })),
            "no-etc",
        ),
        (
            "a path from somewhere",
            "run_action",
            act("label_host", json!({ "place": "../etc/passwd" })),
            "no-etc",
        ),
    ];
    let by_bob = [
        ("a change", "run_action", act("restart", json!({})), "bob-looks"),
        (
            "by its own tool",
            "restart_service",
            own(json!({ "unit": "cron" })),
            "bob-looks",
        ),
        ("what destroys", "run_action", act("wipe_cache", json!({})), "bob-looks"),
        (
            "a trial that changes",
            "run_action",
            trial(act("wipe_cache", json!({}))),
            "bob-looks",
        ),
        (
            "a task where nothing is his",
            "open_task",
            json!({ "reason": "why", "targets": ["denied-1"] }),
            "not-there",
        ),
        (
            "one that a call opens",
            "tail_log",
            json!({ "target": "denied-1", "path": "/var/log/x", "reason": "why" }),
            "not-there",
        ),
        (
            "a task by labels",
            "open_task",
            json!({ "reason": "why", "targets": ["web-2"] }),
            "zone-b",
        ),
        (
            "a call by labels",
            "check_health",
            json!({ "target": "web-2", "probe": "web", "reason": "why" }),
            "zone-b",
        ),
    ];
    let count = attacks.len() + by_bob.len();
    for (name, tool, arguments, rule) in attacks {
        judge(&world, &mut alice, name, tool, arguments, rule).await;
    }
    for (name, tool, arguments, rule) in by_bob {
        judge(&world, &mut bob, name, tool, arguments, rule).await;
    }
    // What is not one call with one meaning is none: the first and the second of them are not tried in turn.
    let twice = [
        (
            "twice in its arguments",
            json!({ "action": "restart_service", "target": "web-1", "reason": "why", "args": "@" }).to_string()
                .replace("\"@\"", r#"{"unit":"cron","unit":"shop-db"}"#),
        ),
        (
            "beside its arguments",
            json!({ "action": "restart_service", "target": "web-1", "reason": "why", "unit": "shop-db", "args": { "unit": "cron" } }).to_string(),
        ),
        (
            "of another type",
            act("restart_service", json!({ "unit": ["shop-db"] })).to_string(),
        ),
        ("null", act("restart_service", json!({ "unit": null })).to_string()),
        ("a mode that is none", trial(act("restart_service", json!({ "unit": "cron" }))).to_string().replace("dry_run", "RUN")),
    ];
    for (id, (name, arguments)) in (500..).zip(&twice) {
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"run_action","arguments":{arguments}}}}}"#
        );
        alice.send(line).await;
        let answer = alice.read().await.unwrap();
        let code = &answer["result"]["structuredContent"]["code"];
        assert_eq!(code, "arguments_invalid", "{name}: {answer}");
    }
    // Two of them in one batch, and many at once.
    let call = |id: u64| {
        let params = json!({ "name": "restart_service", "arguments": own(json!({ "unit": "shop-db" })) });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    alice.send(json!([call(600), call(601)]).to_string()).await;
    assert_eq!(alice.read().await.unwrap()["error"]["data"]["code"], "line_malformed");
    for id in 700..720 {
        alice.send(call(id).to_string()).await;
    }
    for _ in 700..720 {
        let answer = alice.read().await.unwrap();
        assert_eq!(
            answer["result"]["structuredContent"]["code"], "policy_denied",
            "{answer}"
        );
    }
    let all = count + twice.len() + 1 + 20;
    assert!(world.seen.requests.lock().unwrap().is_empty(), "nothing was sent");
    assert!(world.ca.authorized.lock().unwrap().is_empty(), "the CA was not asked");
    assert_eq!(
        world.ca.opened.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "but for the one honest task"
    );
    println!("{all} attacks, {all} refused");
}

/// What no rule speaks of goes on.
#[tokio::test]
async fn what_is_harmless_beside_a_deny_rule_goes_through() {
    let world = ruled().await;
    let mut alice = world.client(ALICE).await;
    let mut bob = world.client(BOB).await;
    let calls = [
        (
            "restart_service",
            json!({ "target": "web-1", "reason": "why", "unit": "cron" }),
        ),
        ("tail_log", read("/var/log/secrets")),
        ("tail_log", read("/var/log/auth.log.1")),
        (
            "run_action",
            act("label_host", json!({ "label": "a-Prod", "owner": "root" })),
        ),
        (
            "run_action",
            act("label_host", json!({ "number": 7, "owner": "alice" })),
        ),
        ("run_action", act("label_host", json!({ "units": ["shop-db"] }))),
        (
            "run_action",
            act(
                "label_host",
                json!({ "units": ["cron"], "force": true, "owner": "alice" }),
            ),
        ),
        (
            "run_action",
            act("label_host", json!({ "place": "/etcetera", "owner": "alice" })),
        ),
        ("run_action", act("restart", json!({ "unit": "shop-db" }))),
    ];
    for (tool, call) in calls {
        let (said, is_error) = alice.call(tool, call.clone()).await;
        assert!(!is_error, "{call}: {said}");
    }
    let mut trial = act("restart_service", json!({ "unit": "cron" }));
    trial["mode"] = "dry_run".into();
    let (said, is_error) = bob.call("run_action", trial).await;
    assert!(!is_error, "it only reads: {said}");
    // A brain's name is what a client says, and this says so.
    let mut other = world.raw(BOB);
    other.initialize("somebody").await;
    let call = json!({ "target": "web-2", "probe": "web", "reason": "why" });
    let (said, _) = other.call("check_health", call).await;
    assert_ne!(said["code"], "policy_denied", "{said}");
}

/// REQ-DENY-6
#[tokio::test]
async fn a_task_is_opened_where_no_rule_denies_it_and_says_where_one_does() {
    let world = ruled().await;
    let mut alice = world.client(ALICE).await;
    let open = json!({ "reason": "why", "targets": ["denied-1", "web-1", "web-2"] });
    let (said, is_error) = alice.call("open_task", open).await;
    assert!(!is_error, "{said}");
    assert_eq!(said["targets"], json!(["web-1"]));
    let refused = said["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2);
    for (refused, rule) in refused.iter().zip(["not-there", "zone-b"]) {
        assert_eq!(refused["code"], "policy_denied");
        assert!(refused["message"].as_str().unwrap().contains(rule), "{refused}");
    }
    assert_eq!(world.events(), ["open", "refused", "refused"]);
}

/// REQ-DENY-8
#[tokio::test]
async fn a_relay_that_only_reads_refuses_changes_before_anybody_is_asked() {
    let mut world = World::new(Manner::Says("done\n".into())).await;
    world.rule("mode = \"readonly\"");
    let mut client = world.client(ALICE).await;
    let trial = |mut call: Value| {
        call["mode"] = "dry_run".into();
        call
    };
    let attacks = [
        ("run_action", act("restart", json!({})), "only reads"),
        ("run_action", act("restart", json!({ "unit": 7 })), "only reads"),
        ("run_action", act("wipe_cache", json!({})), "only reads"),
        ("run_action", trial(act("wipe_cache", json!({}))), "only reads"),
        (
            "restart_service",
            json!({ "target": "web-1", "unit": "cron" }),
            "Call restart_service (mode dry_run)",
        ),
        (
            "run_action",
            act("restart_service", json!({})),
            "Call restart_service (mode dry_run)",
        ),
    ];
    let count = attacks.len();
    for (tool, call, next) in attacks {
        let (said, is_error) = client.call(tool, call.clone()).await;
        assert!(is_error);
        assert_eq!(
            (&said["code"], &said["refused_by"], &said["policy"], &said["retryable"]),
            (
                &json!("read_only"),
                &json!("relay"),
                &json!(["readonly"]),
                &json!(false)
            ),
            "{call}: {said}"
        );
        assert!(said["next"].as_str().unwrap().contains(next), "{said}");
        let record = world.records().pop().unwrap();
        assert_eq!(
            (&record["event"], &record["code"], &record["policy"]),
            (&json!("refused"), &json!("read_only"), &json!(["readonly"]))
        );
    }
    assert_eq!(world.ca.opened.load(std::sync::atomic::Ordering::SeqCst), 0);
    println!("{count} attacks, {count} refused");
    let (said, is_error) = client.call("tail_log", read("/var/log/x")).await;
    assert!(!is_error, "{said}");
    let (said, is_error) = client
        .call("run_action", trial(act("restart_service", json!({}))))
        .await;
    assert!(!is_error, "{said}");
    assert_eq!(said["mode"], "dry_run");
    let (said, _) = client.call("server_info", json!({})).await;
    assert_eq!(said["mode"], "readonly");
}

/// The shipped example shows rules as comments: they are rules.
#[tokio::test]
async fn the_rules_that_the_example_shows_are_rules() {
    let world = World::new(Manner::Mute).await;
    let (before, shown) = EXAMPLE.split_once("# [[deny]]\n").unwrap();
    let shown: String = shown
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches(['#', ' '])))
        .collect();
    let text = format!("{before}\n[[deny]]\n{shown}");
    let rules = of_file(&text, &world.relay.inventory, &world.relay.catalogue).unwrap();
    assert_eq!(rules.len(), 3);
    assert!(rules.mode_lets(wire::Risk::Destroy));
}

/// REQ-DENY-5
#[tokio::test]
async fn a_rule_that_names_what_is_nowhere_is_a_fault_and_all_of_them_are_named_at_once() {
    let world = World::new(Manner::Mute).await;
    let parse = |text: &str| {
        let said = rules(text, &world.relay.inventory, &world.relay.catalogue);
        said.map(|_| ()).map_err(|faults| faults.join("\n"))
    };
    let one = |rule: &str| parse(&format!("deny = [{rule}]"));
    assert_eq!(parse(RULES), Ok(()));
    let unknown = [
        (
            r#"{ id = "a", persons = ["alice", "mallory"] }"#,
            "deny a: persons[1]: is no [[person]]",
        ),
        (
            r#"{ id = "a", targets = "web-9" }"#,
            "deny a: targets[0]: is not in the inventory",
        ),
        (
            r#"{ id = "a", labels = { env = ["test", "prod"] } }"#,
            "deny a: labels.env: has a value that no target",
        ),
        (
            r#"{ id = "a", labels = { stage = "x" } }"#,
            "deny a: labels.stage: has a value that no target",
        ),
        (
            r#"{ id = "a", actions = "restart_servcie" }"#,
            "deny a: actions[0]: is not in the catalogue",
        ),
        (
            r#"{ id = "a", actions = "tail_log", risk = "change" }"#,
            "deny a: risk: is that of none of its actions",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { unit = "x" } }"#,
            "deny a: args.unit: is no argument of it",
        ),
        (
            r#"{ id = "a", actions = ["tail_log", "restart_service"], args = { unit = "shop" } }"#,
            "args.unit: is no argument of it (action tail_log)",
        ),
        (
            r#"{ id = "a", actions = "restart_service", args = { unit = "nginx" } }"#,
            "args.unit: has a value that the argument cannot have",
        ),
        (
            r#"{ id = "a", actions = "restart_service", args = { unit = 7 } }"#,
            "args.unit: has a value that the argument cannot have",
        ),
        (
            r#"{ id = "a", actions = "restart_service", args = { unit = { starts_with = "x" } } }"#,
            "args.unit: begins like no value",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { path = "/var/log/x" } }"#,
            "args.path: is a path: say { beneath",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { path = { starts_with = "/var/lo" } } }"#,
            "args.path: is a path: say { beneath",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { lines = { starts_with = "5" } } }"#,
            "args.lines: is no text",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { lines = 9000 } }"#,
            "args.lines: has a value that the argument cannot have",
        ),
        (
            r#"{ id = "a", actions = "restart", args = { unit = { beneath = "/x" } } }"#,
            "args.unit: is no path",
        ),
    ];
    let malformed = [
        (r#"{ targets = "web-1" }"#, "deny[0].id: is missing"),
        (r#"{ id = "No DB", targets = "web-1" }"#, "deny[0].id: must be"),
        (r#"{ id = "readonly", targets = "web-1" }"#, "deny[0].id: must be"),
        (r#"{ id = "a" }"#, "deny[0].id: has no condition beside it"),
        (r#"{ id = "a", why = "x" }"#, "deny[0].id: has no condition beside it"),
        (
            r#"{ id = "a", targets = "web-1" }, { id = "a", targets = "web-2" }"#,
            "deny[1].id: stands twice",
        ),
        (
            r#"{ id = "a", targets = [] }"#,
            "deny[0].targets: must be 1 to 64 values",
        ),
        (
            r#"{ id = "a", targets = ["web-1", "web-1"] }"#,
            "deny[0].targets[1]: stands twice",
        ),
        (r#"{ id = "a", targets = ["Web 1"] }"#, "deny[0].targets[0]: "),
        (
            r#"{ id = "a", risk = "write" }"#,
            "deny[0].risk[0]: must be read, change or destroy",
        ),
        (
            r#"{ id = "a", labels = {} }"#,
            "deny[0].labels: must be a table that is not empty",
        ),
        (
            r#"{ id = "a", labels = { env = 7 } }"#,
            "deny[0].labels.env: must be a string",
        ),
        (
            r#"{ id = "a", args = { unit = "x" } }"#,
            "deny[0].actions: must say whose args",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { path = { under = "/x" } } }"#,
            "deny[0].args.path: must be values",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { path = { beneath = "/x/" } } }"#,
            "deny[0].args.path: must be absolute",
        ),
        (
            r#"{ id = "a", actions = "tail_log", args = { path = { beneath = "/x", starts_with = "/x" } } }"#,
            "deny[0].args.path: must be values",
        ),
        (
            r#"{ id = "a", actions = "restart", args = { unit = { starts_with = " " } } }"#,
            "deny[0].args.unit: must be texts that are not empty",
        ),
        (
            r#"{ id = "a", actions = "restart", args = { unit = 1.5 } }"#,
            "deny[0].args.unit: must be texts, integers",
        ),
        (r#"{ id = "a", target = "web-1" }"#, "deny[0].target: is unknown"),
        (
            r#"{ id = "a", targets = "web-1", why = "two\nlines" }"#,
            "deny[0].why: must be one line",
        ),
    ];
    for (rule, fault) in unknown.iter().chain(&malformed) {
        let said = one(rule).unwrap_err();
        assert!(
            said.lines().any(|line| line.starts_with(fault) || line.contains(fault)),
            "{rule}: {said}"
        );
    }
    for mode in ["\"readwrite\"", "true"] {
        assert!(
            parse(&format!("mode = {mode}"))
                .unwrap_err()
                .starts_with("mode: must be")
        );
    }
    let all = unknown.map(|(rule, _)| rule.replace("\"a\"", "\"b\""));
    let several = format!("deny = [{}, {}]", all[0], all[1].replace("\"b\"", "\"c\""));
    assert_eq!(parse(&several).unwrap_err().lines().count(), 2);
    let several = format!(
        "mode = 1\ndeny = [{}, {}]",
        malformed[8].0,
        malformed[9].0.replace("\"a\"", "\"b\"")
    );
    assert_eq!(parse(&several).unwrap_err().lines().count(), 3);
    let count = unknown.len() + malformed.len() + 4;
    println!("{count} faulty configurations, {count} refused");
}
