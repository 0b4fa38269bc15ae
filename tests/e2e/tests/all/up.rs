//! `make up`: the stanza that it prints is one that an MCP client can use.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use harness::McpClient;
use serde_json::{Value, json};

use crate::STACK;

#[test]
fn the_stanza_that_up_prints_starts_a_working_server() {
    let program = STACK.world().program("harness").unwrap();
    let socket = STACK.folder().join("up.sock");
    let mut up = Command::new(program)
        .arg("up")
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map(Result::unwrap);
    let stanza: Vec<String> = lines
        .skip_while(|line| line != "{")
        .take_while(|line| !line.is_empty())
        .collect();
    let stanza: Value = serde_json::from_str(&stanza.concat()).unwrap();
    let server = &stanza["mcpServers"]["writ"];

    let mut command = Command::new(server["command"].as_str().unwrap());
    command.args(
        server["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap()),
    );
    let mut client = McpClient::start(command).unwrap();
    let read = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1, "reason": "a test"});
    client.call_ok("tail_log", read).unwrap();
    drop(client);
    up.kill().unwrap();
    up.wait().unwrap();
}
