//! Probes of every kind, healthy and not, from an MCP client to the target's own `target.toml`; and one that takes too long.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use harness::spawn::wait_for;
use harness::{ALICE, McpClient, Options, Stack, records};
use serde_json::{Value, json};

/// A listener that answers every request with this status line.
fn serve(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.11:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 1024]);
            let _ = write!(connection, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    port
}

/// A port that nobody listens on.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.11:0").unwrap().local_addr().unwrap().port()
}

fn probe(name: &str, kind: &str, rest: &str) -> String {
    format!("[probe.{name}]\nkind = \"{kind}\"\n{rest}\ntimeout_ms = 5000\n")
}

fn probes() -> String {
    let http = |port: u16| format!("url = \"http://127.0.0.11:{port}/health\"");
    let process = |name: &str| format!("name = \"{name}\"");
    let exec = |program: &str| format!("program = \"{program}\"\nargv = []");
    let tcp = |port: u16| format!("address = \"127.0.0.11\"\nport = {port}");
    let disk = |percent: u8| format!("path = \"/var/log\"\nmin_free_percent = {percent}");
    [
        probe("tcp-down", "tcp", &tcp(closed())),
        probe("disk-full", "disk", &disk(100)),
        probe("http-up", "http", &http(serve("200 OK"))),
        probe("http-ill", "http", &http(serve("503 Service Unavailable"))),
        probe("http-down", "http", &http(closed())),
        probe("process-up", "process", &process("sshd")),
        probe("process-down", "process", &process("nobody-runs")),
        probe("exec-up", "exec", &exec("/usr/bin/true")),
        probe("exec-down", "exec", &exec("/usr/bin/false")),
    ]
    .concat()
}

fn check(client: &mut McpClient, probe: &str) -> harness::mcp::Called {
    let arguments = json!({"target": "web-1", "probe": probe, "reason": "a test"});
    client.call("check_health", arguments).unwrap()
}

/// REQ-MANIFEST-17, REQ-MANIFEST-24, REQ-MANIFEST-25
#[test]
fn check_health_asks_the_probes_of_the_target_by_name() {
    let stack = Stack::start(&Options {
        targets: vec!["web-1"],
        probes: probes(),
        ..Options::default()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    for probe in ["ssh", "root-disk", "http-up", "process-up", "exec-up"] {
        let called = check(&mut client, probe);
        assert!(!called.is_error, "{probe}: {}", called.value);
        assert_eq!(called.value["exit_code"], 0, "{probe}: {}", called.value);
    }
    let ill = [
        "tcp-down",
        "disk-full",
        "http-ill",
        "http-down",
        "process-down",
        "exec-down",
    ];
    for probe in ill {
        let called = check(&mut client, probe);
        assert!(called.is_error, "{probe}: {}", called.value);
        assert_eq!(called.code(), "exit_nonzero", "{probe}: {}", called.value);
    }
    let called = check(&mut client, "nobody");
    assert!(called.is_error, "{}", called.value);
    assert_eq!(called.code(), "arguments_invalid");
}

/// Whether a process whose arguments hold this word runs anywhere in this world.
fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|arguments| {
            arguments
                .split(|byte| *byte == 0)
                .any(|argument| argument == word.as_bytes())
        })
}

/// REQ-OUTCOME-7
#[test]
fn what_takes_longer_than_it_may_is_ended_and_said_to_be_timed_out() {
    // Two processes, one the child of the other, with a word that nobody else has in his arguments.
    let nap = "3599.25";
    let stack = Stack::start(&Options {
        targets: vec!["web-1"],
        probes: format!(
            "[probe.nap]\nkind = \"exec\"\nprogram = \"/usr/bin/timeout\"\n\
             argv = [\"--foreground\", \"3600\", \"/usr/bin/sleep\", \"{nap}\"]\ntimeout_ms = 4000\n"
        ),
        ..Options::default()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let arguments = json!({"target": "web-1", "probe": "nap", "reason": "a test"});
    let call = json!({"name": "check_health", "arguments": arguments});
    let id = client.send("tools/call", call).unwrap();
    wait_for("the program", Duration::from_secs(20), || Ok(runs(nap))).unwrap();
    let answer = client.answer(id, Duration::from_secs(20)).unwrap();
    assert_eq!(answer["isError"], true, "{answer}");
    let said = &answer["structuredContent"];
    assert_eq!(said["status"], "timed_out", "{said}");
    assert_eq!(said["code"], "deadline_exceeded", "{said}");
    wait_for("the end of the program", Duration::from_secs(20), || Ok(!runs(nap))).unwrap();

    let records = stack.target("web-1").unwrap().records().unwrap();
    let result = records
        .iter()
        .rev()
        .find(|record| records::is(record, "result"))
        .unwrap();
    assert_eq!(result["status"], "timed_out", "{result}");
    assert_eq!(result["code"], "deadline_exceeded", "{result}");
    let lasted = result["duration_ms"].as_u64().unwrap();
    assert!((4000..9000).contains(&lasted), "{lasted} ms");
    let relay = stack.control.records_relay().unwrap();
    let outcome: Vec<&Value> = relay.iter().filter(|record| records::is(record, "outcome")).collect();
    assert_eq!(outcome.len(), 1);
    assert_eq!(outcome[0]["code"], "deadline_exceeded", "{}", outcome[0]);
}
