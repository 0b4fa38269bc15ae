//! Tool calls of an MCP client over stdio, ours and a peer's, and what has to come back.

use std::time::Instant;

use anyhow::{Context as _, Result};
use harness::McpClient;
use serde_json::{Value, json};

use crate::peers::SshMcp;
use crate::sample::{End, Run};
use crate::session::ms;
use crate::site::{FILE, LINES, TAIL_BYTES, WEB};

/// One `tail_log` at the relay, in the client's open task or in a new one; and the task.
pub fn tail_log(client: &mut McpClient) -> Result<(Run, String)> {
    let arguments = json!({"target": WEB, "path": FILE, "lines": LINES, "reason": "a bench"});
    tail(client, "tail_log", arguments)
}

/// The same tail by another action, one that changes something as far as anybody knows.
pub fn run_action(client: &mut McpClient, action: &str) -> Result<(Run, String)> {
    let args = json!({"path": FILE, "lines": LINES});
    let arguments = json!({"action": action, "target": WEB, "args": args, "reason": "a bench"});
    tail(client, "run_action", arguments)
}

/// A call whose answer has to be the tail.
pub fn tail(client: &mut McpClient, tool: &str, arguments: Value) -> Result<(Run, String)> {
    let begun = Instant::now();
    let called = client.call(tool, arguments)?;
    let took = ms(begun);
    let exit = called.value.get("exit_code").and_then(Value::as_i64);
    let text = called.value.pointer("/untrusted/output").and_then(Value::as_str);
    let seen = End {
        bytes: text.map_or(0, str::len) as u64,
        exit: exit.and_then(|code| i32::try_from(code).ok()),
    };
    let task = called.value.get("task_id").and_then(Value::as_str);
    let task = task.with_context(|| format!("no task in {}", called.value))?.to_owned();
    let check = seen.is(End::fine(TAIL_BYTES));
    Ok((
        Run::new(took, check.map_err(|what| format!("{what} ({})", called.code()))),
        task,
    ))
}

/// Ends a task, so that the next call has to open one.
pub fn close(client: &mut McpClient, task: &str) -> Result<()> {
    client.call_ok("close_task", json!({ "task_id": task })).map(drop)
}

/// The same tail by ssh-mcp.
pub fn ssh_mcp(client: &mut McpClient) -> Result<Run> {
    let (tool, arguments) = SshMcp::arguments();
    let begun = Instant::now();
    let result = client.request("tools/call", json!({"name": tool, "arguments": arguments}))?;
    let took = ms(begun);
    let text = result
        .pointer("/content/0/text")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let failed = result.get("isError").and_then(Value::as_bool).unwrap_or(false);
    let seen = End {
        bytes: text.len() as u64,
        exit: (!failed).then_some(0),
    };
    Ok(Run::new(took, seen.is(End::fine(TAIL_BYTES))))
}
