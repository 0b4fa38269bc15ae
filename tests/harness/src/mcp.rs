//! A small MCP client over pipes, of our own: it knows JSON-RPC and the three methods that a test needs, and judges nothing.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use crate::ssh::Session;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that has been initialised.
#[derive(Debug)]
pub struct McpClient {
    pipe: Session,
    next: u64,
    /// What the server said of itself.
    pub server: Value,
}

impl McpClient {
    /// Starts a server on pipes and initialises.
    pub fn start(command: Command) -> Result<McpClient> {
        let mut client = McpClient {
            pipe: Session::over(command)?,
            next: 1,
            server: Value::Null,
        };
        client.server = client.request(
            "initialize",
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "harness", "version": "1"}}),
        )?;
        client.notify("notifications/initialized", json!({}))?;
        Ok(client)
    }

    /// Calls a method and returns its result; a JSON-RPC error is an error whose text is that error.
    pub fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = self.send(method, params)?;
        self.answer(id, LIMIT)
    }

    /// Sends a request and returns its id; [`Self::answer`] waits for it.
    pub fn send(&mut self, method: &str, params: Value) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        self.pipe
            .send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string())?;
        Ok(id)
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: Value) -> Result<()> {
        self.pipe
            .send(json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string())
    }

    /// Sends these bytes as they are, with a newline.
    pub fn send_raw(&mut self, line: &[u8]) -> Result<()> {
        self.pipe.send(line)
    }

    /// The answer to the request of this id, passing over everything else.
    pub fn answer(&mut self, id: u64, limit: Duration) -> Result<Value> {
        let mut answers = self.answers(&[id], limit)?;
        Ok(answers.remove(0))
    }

    /// The answers to the requests of these ids, in this order, whichever comes first; passing over everything else.
    pub fn answers(&mut self, ids: &[u64], limit: Duration) -> Result<Vec<Value>> {
        let end = Instant::now() + limit;
        let mut found = BTreeMap::new();
        while found.len() < ids.len() {
            let left = end.saturating_duration_since(Instant::now());
            let Some(line) = self.pipe.raw_line(left)? else {
                bail!("the server left: {}", self.pipe.errors())
            };
            let message: Value = serde_json::from_slice(&line)?;
            let id = message.get("id").and_then(Value::as_u64);
            let Some(id) = id.filter(|id| ids.contains(id)) else {
                continue;
            };
            if let Some(error) = message.get("error") {
                bail!("{error}");
            }
            let result = message.get("result").cloned();
            found.insert(
                id,
                result.ok_or_else(|| anyhow!("neither a result nor an error: {message}"))?,
            );
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// The answers to calls of tools that were sent, in this order.
    pub fn called(&mut self, ids: &[u64], limit: Duration) -> Result<Vec<Called>> {
        self.answers(ids, limit)?.iter().map(Called::of).collect()
    }

    /// The names of the tools.
    pub fn tools(&mut self) -> Result<Vec<Value>> {
        let result = self.request("tools/list", json!({}))?;
        result
            .get("tools")
            .and_then(Value::as_array)
            .cloned()
            .ok_or_else(|| anyhow!("no tools in {result}"))
    }

    /// Calls a tool.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Result<Called> {
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments}))?;
        Called::of(&result)
    }

    /// Calls a tool that has to answer without an error.
    pub fn call_ok(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        let called = self.call(tool, arguments)?;
        if called.is_error {
            bail!("{tool} was answered with {}", called.value);
        }
        Ok(called.value)
    }
}

/// What a tool call came back with.
#[derive(Clone, Debug)]
pub struct Called {
    /// MCP's mark of a refusal or a failure.
    pub is_error: bool,
    /// The structured content.
    pub value: Value,
}

impl Called {
    fn of(result: &Value) -> Result<Called> {
        let is_error = result.get("isError").and_then(Value::as_bool).unwrap_or(false);
        let Some(value) = result.get("structuredContent").cloned() else {
            bail!("no structured content in {result}")
        };
        Ok(Called { is_error, value })
    }

    /// The Code of a refusal or a failure, `none` where there is none.
    pub fn code(&self) -> &str {
        self.value.get("code").and_then(Value::as_str).unwrap_or("none")
    }
}
