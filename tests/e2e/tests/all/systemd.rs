//! The shipped actions for systemd, through an MCP client, on a target that a real systemd runs: its own systemctl and
//! journalctl, in the walls where an action has walls, as root by sudo where it has none.

use std::time::Duration;

use harness::evidence::Evidence;
use harness::spawn::wait_for;
use harness::systemd::{self, Systemd};
use harness::world::World;
use harness::{ALICE, McpClient, Options, Stack, records, services};
use serde_json::{Value, json};

/// Beside the shipped policy.
const MAY: &str = r#"
@id("services")
permit (
    principal,
    action in [Action::"restart_service", Action::"service_status", Action::"list_services", Action::"journal_query"],
    resource == Target::"web-1"
);
"#;

/// What may be restarted here.
const UNITS: [&str; 4] = ["shop.service", "cart.service", "once.service", "absent.service"];

const SERVICES: [(&str, &str); 4] = [
    (
        "shop.service",
        "[Service]\nExecStart=/bin/sh -c 'echo the shop is open; exec sleep 1000000'\n",
    ),
    (
        "cart.service",
        "[Service]\nExecStart=/bin/sh -c 'echo the cart is empty; exec sleep 1000000'\n",
    ),
    // It starts well, and does not run afterwards.
    ("once.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n"),
    ("absent.service", "[Service]\nType=exec\nExecStart=/usr/bin/absent\n"),
];

/// A stack whose one target systemd runs. systemd goes first.
struct Site {
    systemd: Systemd,
    stack: Stack,
}

/// None where no target can have a systemd, which is said. `change` is made to each manifest of systemd's before it is laid.
fn start(change: impl Fn(String) -> String) -> Option<Site> {
    if let Some(why) = systemd::missing() {
        println!("not shown: what the shipped actions do under systemd ({why})");
        return None;
    }
    let manifests = services::manifests(&World::here().unwrap(), "systemd", &UNITS).unwrap();
    let mut actions = Vec::new();
    for name in ["journal_query", "list_services", "restart_service", "service_status"] {
        let (_, text) = manifests
            .iter()
            .find(|(file, _)| *file == format!("{name}.toml"))
            .unwrap();
        actions.push((name, change(text.clone())));
    }
    assert_eq!(actions.len(), manifests.len(), "each of them");
    let mut stack = Stack::start(&Options {
        targets: vec!["web-1"],
        policy: Some([include_str!("../../../../deploy/ca/policy.cedar"), MAY].concat()),
        actions,
        ..Options::default()
    })
    .unwrap();
    let web = stack.target_mut("web-1").unwrap();
    web.as_root("/usr/sbin/writ-target", &["sudoers", "--install"], b"")
        .unwrap();
    let systemd = Systemd::start(web, &SERVICES).unwrap();
    Some(Site { systemd, stack })
}

fn call(action: &str, args: Value) -> Value {
    json!({"action": action, "target": "web-1", "args": args, "reason": "a test"})
}

fn ok(client: &mut McpClient, action: &str, args: Value) -> String {
    let answer = client.call_ok("run_action", call(action, args)).unwrap();
    answer["untrusted"]["output"].as_str().unwrap().to_owned()
}

/// What an action that was run to its end and failed is told with: Code, exit code, what the program complained of.
fn failed(client: &mut McpClient, action: &str, args: Value) -> (String, i64, String) {
    let answer = client.call("run_action", call(action, args)).unwrap();
    let stderr = answer.value["untrusted"]["stderr"].as_str().unwrap().to_owned();
    let exit = answer.value["exit_code"].as_i64().unwrap();
    (answer.code().to_owned(), exit, stderr)
}

/// Waits until root finds a text so often in the journal: what a service writes is logged when journald comes to it.
fn wait_for_journal(systemd: &Systemd, text: &str, times: usize) {
    let there = || {
        let all = systemd.as_root("/usr/bin/journalctl", &["--no-pager", "--output=cat"])?;
        Ok(String::from_utf8_lossy(&all).matches(text).count() == times)
    };
    wait_for(text, Duration::from_secs(10), there).unwrap();
}

#[test]
fn systemds_services_are_listed_looked_at_and_restarted() {
    let Some(Site { systemd, stack }) = start(|text| text) else {
        return;
    };
    let mut client = stack.client(ALICE).unwrap();
    let shop = json!({"unit": "shop.service"});
    let before = systemd.pid("shop.service").unwrap();
    let cart = systemd.pid("cart.service").unwrap();

    let list = ok(&mut client, "list_services", json!({}));
    let states = |unit: &str| -> Vec<&str> {
        let line = list.lines().find(|line| line.starts_with(unit)).unwrap_or_default();
        line.split_whitespace().skip(1).take(3).collect()
    };
    assert_eq!(states("shop.service"), ["loaded", "active", "running"], "{list}");
    assert_eq!(states("sshd.service"), ["loaded", "active", "running"], "{list}");
    assert_eq!(states("absent.service"), ["loaded", "failed", "failed"], "{list}");
    let status = ok(&mut client, "service_status", shop.clone());
    assert!(status.contains("Active: active (running)"), "{status}");
    assert!(status.contains(&format!("Main PID: {before} ")), "{status}");

    let mut trial = call("restart_service", shop.clone());
    trial["mode"] = json!("dry_run");
    let tried = client.call_ok("run_action", trial).unwrap();
    assert!(
        tried["untrusted"]["output"]
            .as_str()
            .unwrap()
            .contains(&format!("Main PID: {before} ")),
        "{tried}"
    );
    assert_eq!(
        systemd.pid("shop.service").unwrap(),
        before,
        "a dry run restarts nothing"
    );

    let answer = client
        .call_ok("run_action", call("restart_service", shop.clone()))
        .unwrap();
    let after = systemd.pid("shop.service").unwrap();
    assert_ne!(before, after, "{answer}");
    assert_eq!(systemd.pid("cart.service").unwrap(), cart, "and no other");
    let status = ok(&mut client, "service_status", shop);
    assert!(status.contains(&format!("Main PID: {after} ")), "{status}");

    let unknown = failed(&mut client, "service_status", json!({"unit": "nobody.service"}));
    assert_eq!((unknown.0.as_str(), unknown.1), ("exit_nonzero", 4), "{unknown:?}");
    let unlisted = client
        .call("run_action", call("restart_service", json!({"unit": "sshd.service"})))
        .unwrap();
    assert_eq!(unlisted.code(), "arguments_invalid");

    let all = stack.target("web-1").unwrap().records().unwrap();
    let of_it: Vec<&Value> = all
        .iter()
        .filter(|record| {
            records::of(record, "action") == Some("restart_service") && records::of(record, "mode") == Some("run")
        })
        .collect();
    let events: Vec<_> = of_it.iter().filter_map(|record| records::of(record, "event")).collect();
    assert_eq!(events, ["intent", "result"]);
    assert_eq!(of_it[1]["walls"], json!(["no_sandbox", "sudo:root"]));
    assert_eq!(records::of(of_it[1], "status"), Some("ok"));
    let argv = json!([
        "/usr/bin/sudo",
        "-n",
        "-u",
        "root",
        "--",
        "/usr/bin/systemctl",
        "restart",
        "shop.service"
    ]);
    assert_eq!(of_it[0]["argv"], argv);
    let verified = Evidence::copy(&stack, "copies").unwrap().verify().unwrap();
    assert_eq!(verified.exit, 0, "{:?}", verified.faults());
}

/// systemd says that it is done, or that it is not: either way the client is told that the service does not run.
#[test]
fn a_unit_of_systemds_that_does_not_come_up_fails_its_restart() {
    let waiting = "wait_ms = 10_000";
    let Some(Site { systemd, stack }) = start(|text| text.replace(waiting, "wait_ms = 1_000")) else {
        return;
    };
    let mut client = stack.client(ALICE).unwrap();
    let once = json!({"unit": "once.service"});
    let answer = client
        .call("run_action", call("restart_service", once.clone()))
        .unwrap();
    assert_eq!(answer.code(), "verify_failed", "{}", answer.value);
    let message = answer.value["untrusted"]["message"].as_str().unwrap();
    assert!(
        message.contains("it ended with exit code 0") && message.contains("within 1000 ms"),
        "{message}"
    );
    assert_eq!(failed(&mut client, "service_status", once).1, 3);
    assert!(systemd.pid("once.service").is_err());

    let (code, exit, stderr) = failed(&mut client, "restart_service", json!({"unit": "absent.service"}));
    assert_eq!((code.as_str(), exit), ("exit_nonzero", 1));
    assert!(stderr.contains("Job for absent.service failed"), "{stderr}");
    let all = stack.target("web-1").unwrap().records().unwrap();
    let results = all
        .iter()
        .filter(|record| records::is(record, "result") && records::of(record, "action") == Some("restart_service"));
    let codes: Vec<_> = results.filter_map(|record| records::of(record, "code")).collect();
    assert_eq!(codes, ["verify_failed", "exit_nonzero"]);
}

/// With the list that deploy/target/README.md gives, and not before it.
#[test]
fn the_journal_of_one_unit_is_read_where_agent_runner_may_read_it() {
    let Some(Site { systemd, stack }) = start(|text| text) else {
        return;
    };
    let mut client = stack.client(ALICE).unwrap();
    let shop = json!({"unit": "shop.service"});
    let before = failed(&mut client, "journal_query", shop.clone());
    assert_eq!((before.0.as_str(), before.1), ("exit_nonzero", 1));
    assert!(before.2.contains("insufficient permissions"), "{before:?}");

    let readme = include_str!("../../../../deploy/target/README.md");
    let list = "setfacl -Rnm u:agent-runner:rX,d:u:agent-runner:rX /var/log/journal";
    assert!(readme.contains(list));
    systemd.as_root("/bin/sh", &["-c", list]).unwrap();
    for text in [
        "the shop is open",
        "Started shop.service",
        "the cart is empty",
        "absent.service: Failed with result",
    ] {
        wait_for_journal(&systemd, text, 1);
    }
    let lines = ok(&mut client, "journal_query", shop.clone());
    assert!(lines.contains(": the shop is open"), "{lines}");
    assert!(
        lines.contains("Started shop.service"),
        "systemd's own of the unit: {lines}"
    );
    assert!(!lines.contains("the cart is empty"), "and no other unit's: {lines}");
    let one = ok(
        &mut client,
        "journal_query",
        json!({"unit": "cart.service", "lines": 1, "since": "5 minutes ago"}),
    );
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(
        one.contains("cart.service") || one.contains("the cart is empty"),
        "{one}"
    );
    // `shop` wrote nothing that bad.
    let mut bad = shop;
    bad["priority"] = json!("err");
    assert_eq!(ok(&mut client, "journal_query", bad), "");
    let absent = ok(
        &mut client,
        "journal_query",
        json!({"unit": "absent.service", "priority": "warning"}),
    );
    assert!(absent.contains("Failed with result 'exit-code'"), "{absent}");
    // A journal file that is begun later is made as its folder says.
    systemd.as_root("/usr/bin/journalctl", &["--rotate"]).unwrap();
    ok(&mut client, "restart_service", json!({"unit": "cart.service"}));
    wait_for_journal(&systemd, "the cart is empty", 2);
    let lines = ok(&mut client, "journal_query", json!({"unit": "cart.service"}));
    assert_eq!(lines.matches(": the cart is empty").count(), 2, "{lines}");
}
