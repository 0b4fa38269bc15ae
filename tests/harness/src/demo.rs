//! `make demo`: the main job once, from an MCP client without any key to a log on a target and on into the evidence.
//!
//! Each step shows something and checks it: a step that does not go as it must ends the demo with exit code 1. With
//! `--json` the same steps are printed as data.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::control::POLICY;
use crate::evidence::Evidence;
use crate::ids::ALICE;
use crate::mcp::{Called, McpClient};
use crate::records;
use crate::services::{self, Supervisor};
use crate::stack::{Options, Stack};

/// The log that is read.
const LOG: &str = "/var/log/shop/web.log";
/// The service that is restarted.
const SERVICE: &str = "shop";

/// One step: what it is called, the facts of it, and the lines for a person.
struct Step {
    name: &'static str,
    facts: Value,
    lines: Vec<String>,
}

/// Runs the demo and prints it.
pub fn main(as_json: bool) -> Result<()> {
    let mut steps = Vec::new();
    let result = run(&mut |step: Step| {
        if !as_json {
            print(&step);
        }
        steps.push(step);
    });
    if as_json {
        let list: Vec<Value> = steps
            .iter()
            .map(|step| json!({"step": step.name, "facts": step.facts}))
            .collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({"ok": result.is_ok(), "steps": list}))?
        );
    } else if result.is_ok() {
        println!(
            "\nThat was all of it; nothing is left behind. `make up` keeps such a stack running for your own MCP client."
        );
    }
    result
}

fn print(step: &Step) {
    for (n, line) in step.lines.iter().enumerate() {
        let label = if n == 0 { step.name } else { "" };
        println!("{label:<12} {line}");
    }
}

fn run(show: &mut dyn FnMut(Step)) -> Result<()> {
    let begun = Instant::now();
    let options = Options {
        policy: Some([POLICY, RESTARTS].concat()),
        ..Options::default()
    };
    let stack = Stack::start(&options).context("the stack did not start")?;
    let supervisors: Vec<Supervisor> = stack.targets.iter().map(Supervisor::start).collect::<Result<_>>()?;
    show(built(&stack, begun)?);
    let mut client = stack.client(ALICE)?;
    let (read, task) = tail_twice(&mut client)?;
    show(read);
    show(shadow(&stack, &mut client, &task)?);
    show(elsewhere(&stack)?);
    show(restarted(&stack, &mut client)?);
    show(forbidden(&stack, &mut client)?);
    drop(supervisors);
    client.call_ok("close_task", json!({ "task_id": task }))?;
    let evidence = Evidence::copy(&stack, "copies")?;
    show(replayed(&evidence, &task)?);
    show(verified(&evidence)?);
    show(flipped(&evidence)?);
    Ok(())
}

/// Beside the shipped policy: services may be restarted, but not those of one target.
const RESTARTS: &str = r#"
@id("operators-restart-services")
permit (
    principal in Group::"persons",
    action in [Action::"restart_service", Action::"service_status", Action::"list_services"],
    resource
);

@id("no-restarts-on-web-2")
forbid (principal, action == Action::"restart_service", resource == Target::"web-2");
"#;

fn built(stack: &Stack, begun: Instant) -> Result<Step> {
    let web = stack.target("web-1")?;
    let sshd = web.sshd_version().ok_or_else(|| anyhow!("web-1 says no version"))?;
    let build = String::from_utf8(stack.control.run_ok(ALICE, "writ-relay", &["--version"], b"")?)?
        .trim()
        .to_owned();
    let started_ms = millis(begun);
    let names: Vec<&str> = stack.targets.iter().map(|target| target.name()).collect();
    Ok(Step {
        name: "stack",
        lines: vec![
            format!("{build}; {sshd}"),
            format!(
                "CA, relay and the targets {} started in {started_ms:.0} ms, each with a root of its own",
                names.join(", ")
            ),
        ],
        facts: json!({"build": build, "sshd": sshd, "targets": names, "started_ms": started_ms}),
    })
}

/// The same log twice: the second time on the channel that the first one opened.
fn tail_twice(client: &mut McpClient) -> Result<(Step, String)> {
    let arguments = json!({"target": "web-1", "path": LOG, "lines": 5, "reason": "the shop answers slowly"});
    let begun = Instant::now();
    let first = client.call_ok("tail_log", arguments.clone())?;
    let first_ms = millis(begun);
    let begun = Instant::now();
    let again = client.call_ok("tail_log", arguments)?;
    let again_ms = millis(begun);
    ensure!(
        first.get("task_id") == again.get("task_id"),
        "the second call did not join the first one's task"
    );
    let task = text(&first, "task_id")?;
    let output = text(first.get("untrusted").unwrap_or(&Value::Null), "output")?;
    ensure!(output.lines().count() == 5, "5 lines were asked for: {output}");
    let last = output.lines().last().unwrap_or_default().to_owned();
    let step = Step {
        name: "tail_log",
        lines: vec![
            format!("ok: 5 lines of web-1:{LOG} for alice's client, which holds no key"),
            format!("  … {last}"),
            format!(
                "first {first_ms:.1} ms (task, certificate, login, action), again {again_ms:.1} ms on the kept channel"
            ),
        ],
        facts: json!({"status": first.get("status"), "task_id": task, "last": last, "first_ms": first_ms, "again_ms": again_ms}),
    };
    Ok((step, task))
}

fn shadow(stack: &Stack, client: &mut McpClient, task: &str) -> Result<Step> {
    let called = client.call("read_file", json!({"target": "web-1", "path": "/etc/shadow"}))?;
    ensure!(called.is_error, "/etc/shadow was read: {}", called.value);
    let code = called.code().to_owned();
    let records = stack.target("web-1")?.records()?;
    let refused = records
        .iter()
        .rev()
        .find(|record| records::is(record, "refused") && records::of(record, "task_id") == Some(task));
    let record = refused.ok_or_else(|| anyhow!("web-1 has no record of the refusal"))?;
    ensure!(
        records::of(record, "code") == Some(code.as_str()),
        "web-1 recorded another Code: {record}"
    );
    let seq = record.get("seq").and_then(Value::as_u64).unwrap_or_default();
    Ok(Step {
        name: "read_file",
        lines: vec![format!("/etc/shadow refused by web-1 itself: {code}, its record {seq}")],
        facts: json!({"code": code, "by": "web-1", "record": seq, "answer": called.value}),
    })
}

/// A change: a service under a supervisor gets another process, as root, and a read says so afterwards.
fn restarted(stack: &Stack, client: &mut McpClient) -> Result<Step> {
    let web = stack.target("web-1")?;
    let before = services::pid(web, SERVICE)?;
    let begun = Instant::now();
    let answer = restart(client, "web-1")?;
    ensure!(!answer.is_error, "the restart was refused: {}", answer.value);
    let took_ms = millis(begun);
    let after = services::pid(web, SERVICE)?;
    ensure!(before != after, "{SERVICE} still is process {before}");
    let records = web.records()?;
    let intent = records
        .iter()
        .rev()
        .find(|record| records::is(record, "intent") && records::of(record, "action") == Some("restart_service"));
    let intent = intent.ok_or_else(|| anyhow!("web-1 has no record of the restart"))?;
    let argv: Vec<&str> = intent
        .get("argv")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let walls = intent.get("walls").cloned().unwrap_or_default();
    ensure!(
        walls == json!(["no_sandbox", "sudo:root"]),
        "the record says of walls: {walls}"
    );
    Ok(Step {
        name: "restart",
        lines: vec![
            format!("{SERVICE} on web-1: process {before} became {after}, in {took_ms:.1} ms, looked at afterwards"),
            format!("  as root: {}", argv.join(" ")),
            "  its own certificate for exactly this request; the record says that no walls stood".to_owned(),
        ],
        facts: json!({"before": before, "after": after, "took_ms": took_ms, "argv": argv, "walls": walls, "answer": answer.value}),
    })
}

/// The same where policy forbids it.
fn forbidden(stack: &Stack, client: &mut McpClient) -> Result<Step> {
    let web = stack.target("web-2")?;
    let before = services::pid(web, SERVICE)?;
    let answer = restart(client, "web-2")?;
    ensure!(
        answer.is_error && answer.code() == "policy_denied",
        "not denied: {}",
        answer.value
    );
    ensure!(
        services::pid(web, SERVICE)? == before,
        "{SERVICE} on web-2 was restarted"
    );
    let records = stack.control.records_ca()?;
    let refused = records.iter().rev().find(|record| records::is(record, "refused"));
    let policy = refused
        .and_then(|record| record.get("policy"))
        .cloned()
        .unwrap_or_default();
    ensure!(
        policy == json!(["no-restarts-on-web-2"]),
        "the CA's record names {policy}"
    );
    ensure!(
        answer.value.get("policy") == Some(&policy),
        "the client is told of other policies: {}",
        answer.value
    );
    Ok(Step {
        name: "forbidden",
        lines: vec![format!(
            "{SERVICE} on web-2: policy_denied by no-restarts-on-web-2; it still is process {before}"
        )],
        facts: json!({"code": answer.code(), "policy": policy, "pid": before, "answer": answer.value}),
    })
}

fn restart(client: &mut McpClient, target: &str) -> Result<Called> {
    let arguments = json!({
        "action": "restart_service", "target": target, "args": {"unit": SERVICE}, "reason": "the shop answers slowly",
    });
    client.call("run_action", arguments)
}

/// A thief has the certificate and even its key: it still names one target, and sshd of another does not let it in.
fn elsewhere(stack: &Stack) -> Result<Step> {
    let stolen = stack.open_task("web-1")?;
    let login = stack.login(&stolen.key, &stolen.certificate)?;
    let (web_1, web_2) = (stack.target("web-1")?, stack.target("web-2")?);
    let home = login.run(web_1, &["-T"], &[crate::ssh::EXEC], b"")?;
    ensure!(
        String::from_utf8_lossy(&home.stdout).contains("hello"),
        "web-1 does not take its own certificate"
    );
    let away = login.run(web_2, &["-T"], &[crate::ssh::EXEC], b"")?;
    let said = String::from_utf8_lossy(&away.stderr).into_owned();
    ensure!(
        !away.status.success() && said.contains("Permission denied"),
        "web-2 was expected to refuse: {said}"
    );
    let log = web_2.sshd_log();
    // sshd's words: "does not contain an authorized principal", or "name is not a listed principal".
    let says_why = |line: &&str| line.contains("authorized principal") || line.contains("listed principal");
    let why = log.lines().rev().find(says_why);
    let why = why
        .ok_or_else(|| anyhow!("sshd of web-2 does not say why: {log}"))?
        .to_owned();
    Ok(Step {
        name: "stolen",
        lines: vec![format!(
            "web-1's certificate with its key, tried on web-2: refused by sshd ({why})"
        )],
        facts: json!({"by": "sshd", "target": "web-2", "said": "Permission denied", "log": why}),
    })
}

fn replayed(evidence: &Evidence, task: &str) -> Result<Step> {
    let said = evidence.replay(task)?;
    ensure!(said.exit == 0, "replay ended with {}: {:?}", said.exit, said.faults());
    let timeline = said
        .report
        .get("timeline")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    ensure!(!timeline.is_empty(), "the replay holds nothing: {}", said.report);
    let mut lines = vec!["writ-audit, with copies of the logs in an empty folder and nothing else:".to_owned()];
    lines.extend(timeline.iter().map(moment));
    Ok(Step {
        name: "replay",
        lines,
        facts: json!({"task_id": task, "timeline": timeline.len(), "report": said.report}),
    })
}

/// One record of a replay on one line: when, who, which record, what.
fn moment(moment: &Value) -> String {
    let text = |pointer: &str| moment.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let time = text("/ts").split(['T', 'Z']).nth(1).unwrap_or_default();
    let seq = moment.pointer("/head/seq").and_then(Value::as_u64).unwrap_or_default();
    let said = [text("/record/action"), text("/record/status"), text("/record/code")].join(" ");
    let (tier, host, event) = (text("/tier"), text("/host"), text("/record/event"));
    let line = format!(
        "  {time}  {tier:<6}  {host:<8} {:>3}  {event:<8} {said}",
        format!("#{seq}")
    );
    line.trim_end().to_owned()
}

fn verified(evidence: &Evidence) -> Result<Step> {
    let said = evidence.verify()?;
    ensure!(said.exit == 0, "verify ended with {}: {:?}", said.exit, said.faults());
    let logs = said.report.get("logs").and_then(Value::as_array).map_or(0, Vec::len);
    Ok(Step {
        name: "verify",
        lines: vec![format!("{logs} logs, every record chained to the one before")],
        facts: json!({"exit": said.exit, "logs": logs, "report": said.report}),
    })
}

/// One bit of one record in the copy of web-1's log.
fn flipped(evidence: &Evidence) -> Result<Step> {
    let segments = evidence.segments("web-1")?;
    let file = segments.first().ok_or_else(|| anyhow!("web-1 has no log"))?;
    let mut bytes = fs::read(file)?;
    let at = bytes.len() / 2;
    *bytes.get_mut(at).ok_or_else(|| anyhow!("web-1's log is empty"))? ^= 1;
    fs::write(file, bytes)?;
    let said = evidence.verify()?;
    ensure!(
        said.exit == 2,
        "a flipped byte was not found: verify ended with {}",
        said.exit
    );
    let fault = said
        .faults()
        .first()
        .cloned()
        .ok_or_else(|| anyhow!("verify names no fault: {}", said.report))?;
    let word = |key: &str| {
        fault
            .get(key)
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .unwrap_or_default()
    };
    Ok(Step {
        name: "flipped",
        lines: vec![format!(
            "byte {at} of the copy of web-1's log changed: found, {} at record {}",
            word("kind"),
            word("seq")
        )],
        facts: json!({"exit": said.exit, "byte": at, "fault": fault}),
    })
}

fn millis(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

fn text(value: &Value, key: &str) -> Result<String> {
    value
        .get(key)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("no {key} in {value}"))
}
