//! The binary, killed again and again with calls under way. What it had said yes to is there when it is started again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::binary::Room;
use crate::target::{self, Manner};
use crate::world::{GOOD, HOST_CA, key};

const KILLS: u32 = 24;
const CLIENTS: usize = 8;

/// A client behind the pipe that clients start, who is not surprised when the relay goes away.
pub(crate) struct Client {
    pipe: Child,
    write: ChildStdin,
    read: BufReader<ChildStdout>,
    next: u64,
}

impl Client {
    /// Each client has a name of its own, and so tasks of its own.
    pub(crate) fn connect(room: &Room, number: usize) -> Self {
        let mut client = Self::raw(room);
        let info = json!({ "name": format!("client-{number}"), "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info });
        client.ask("initialize", &params).unwrap();
        let begun = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert!(client.write(format!("{begun}\n").as_bytes()));
        client
    }

    /// One that has said nothing yet.
    pub(crate) fn raw(room: &Room) -> Self {
        let socket = room.at("run/relay.sock");
        let mut pipe = room
            .relay(&["stdio", "--socket", socket.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            write: pipe.stdin.take().unwrap(),
            read: BufReader::new(pipe.stdout.take().unwrap()),
            pipe,
            next: 1,
        }
    }

    /// Whether the pipe took these bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).is_ok()
    }

    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Option<Value> {
        self.send(method, params)?;
        self.read()
    }

    fn send(&mut self, method: &str, params: &Value) -> Option<()> {
        let question = json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params });
        self.next += 1;
        self.write(format!("{question}\n").as_bytes()).then_some(())
    }

    /// Calls, and does not wait for the answer.
    pub(crate) fn begin(&mut self, tool: &str, arguments: &Value) {
        self.send("tools/call", &json!({ "name": tool, "arguments": arguments }))
            .unwrap();
    }

    /// The next answer; none when the relay went away.
    pub(crate) fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.read.read_line(&mut line) {
            Ok(read) if read > 0 => Some(serde_json::from_str(&line).unwrap()),
            _ => None,
        }
    }

    /// Whether there is another answer that is whole.
    pub(crate) fn whole_line(&mut self) -> bool {
        let mut line = Vec::new();
        self.read.read_until(b'\n', &mut line).unwrap();
        line.ends_with(b"\n")
    }

    /// The structured content of a call; none when the relay went away.
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Option<Value> {
        let answer = self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }))?;
        Some(answer["result"]["structuredContent"].clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.pipe.kill();
        let _ = self.pipe.wait();
    }
}

pub(crate) fn tail(more: Value) -> Value {
    let mut arguments = json!({ "target": "web-1", "path": "/var/log/x.log" });
    let fields = arguments.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    arguments
}

/// A room with a CA, and a target of this manner.
pub(crate) async fn room(manner: Manner, ca: Arc<crate::ca::Facts>) -> Room {
    let room = Room::new();
    let target = target::serve(key(30), manner, GOOD).await;
    crate::ca::serve(&room.at("ca.sock"), ca);
    std::fs::set_permissions(room.at("ca.sock"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let inventory = format!(
        "[target.web-1]\naddress = \"{}\"\nhost_ca = \"{}\"\nreceipt_key = \"{}\"\n",
        target.address,
        key(HOST_CA).public().to_openssh(),
        key(30).public().to_openssh()
    );
    room.write("inventory.toml", inventory.as_bytes());
    room
}

pub(crate) fn serve(room: &Room) -> Child {
    let socket = room.at("run/relay.sock");
    // Left behind by the one that was killed.
    let _ = std::fs::remove_file(&socket);
    let mut relay = room
        .relay(&["serve", "--config", &room.config()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if relay.try_wait().unwrap().is_some() || Instant::now() > until {
            relay.kill().unwrap();
            let said = relay.wait_with_output().unwrap().stderr;
            panic!("{}", String::from_utf8_lossy(&said));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    relay
}

/// What the store holds while no relay runs: whole, and how many requests of each phase.
fn look(room: &Room) -> BTreeMap<String, u32> {
    let store = Connection::open(room.at("state/store.sqlite")).unwrap();
    let whole: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let mut phases = store
        .prepare("SELECT phase, count(*) FROM request GROUP BY phase")
        .unwrap();
    phases
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// How often the relay's log has each event of each request.
pub(crate) fn log(room: &Room) -> BTreeMap<(String, String), u32> {
    let mut events = BTreeMap::new();
    for entry in std::fs::read_dir(room.at("log")).unwrap() {
        for line in std::fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            let Ok(record) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if let (Some(request), Some(event)) = (record["request_id"].as_str(), record["event"].as_str()) {
                *events.entry((request.to_owned(), event.to_owned())).or_default() += 1;
            }
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_under_load_again_and_again_leaves_nothing_in_doubt() {
    let room = room(Manner::Slow(4), crate::ca::Facts::generous()).await;
    // Where the disk is fast there are more calls than people make.
    let rates = [
        "person_calls_per_minute",
        "person_burst_calls",
        "target_actions_per_minute",
        "target_burst_actions",
    ];
    room.limit(&rates.map(|rate| format!("{rate} = 1_000_000")).join("\n"));
    // CA and target go on beside it, on threads of their own.
    tokio::task::spawn_blocking(move || again_and_again(&room))
        .await
        .unwrap();
}

fn again_and_again(room: &Room) {
    let mut tasks: Vec<Value> = vec![Value::Null; CLIENTS];
    let (mut answered, mut under_way) = (0, 0);
    // Anywhere in a call, and each time elsewhere.
    let mut chance = u64::from(std::process::id());
    println!("chance begins at {chance}");
    for round in 0..=KILLS {
        let mut relay = serve(room);
        let mut clients = Vec::new();
        for (number, task) in tasks.iter_mut().enumerate() {
            let mut client = Client::connect(room, number);
            if task.is_null() {
                let first = client.call("tail_log", &tail(json!({ "reason": "why" }))).unwrap();
                *task = first["task_id"].clone();
                assert!(task.is_string(), "{first}");
            }
            let status = client.call("task_status", &json!({ "task_id": task })).unwrap();
            assert_eq!(status["open"], true, "{status}");
            for request in status["requests"].as_array().unwrap() {
                assert!(
                    request["status"] == "ok" || request["code"] == "session_lost",
                    "round {round}: {request}"
                );
            }
            clients.push(client);
        }
        if round == KILLS {
            // All of them are usable, and this one is told to stop.
            for (client, task) in clients.iter_mut().zip(&tasks) {
                let said = client.call("tail_log", &tail(json!({ "task_id": task }))).unwrap();
                assert_eq!((&said["status"], &said["task_id"]), (&json!("ok"), task), "{said}");
            }
            kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGTERM).unwrap();
            assert_eq!(relay.wait().unwrap().code(), Some(0));
            break;
        }
        let calling: Vec<_> = clients
            .into_iter()
            .zip(tasks.clone())
            .map(|(mut client, task)| {
                std::thread::spawn(move || {
                    let mut answers = 0;
                    while let Some(said) = client.call("tail_log", &tail(json!({ "task_id": task }))) {
                        assert_eq!(said["status"], "ok", "{said}");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(20_000 + (chance >> 33) % 180_000));
        kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGKILL).unwrap();
        relay.wait().unwrap();
        for calls in calling {
            answered += calls.join().unwrap();
        }
        let phases = look(room);
        assert!(!phases.contains_key("recorded"), "a read begins as sent");
        under_way += phases.get("sent").copied().unwrap_or_default();
    }
    let phases = look(room);
    assert_eq!(phases.keys().collect::<Vec<_>>(), ["settled"]);
    let log = log(room);
    for ((request, event), times) in &log {
        assert_eq!(*times, 1, "{event} of {request}");
        if event == "request" {
            assert!(
                log.contains_key(&(request.clone(), "outcome".to_owned())),
                "{request} has no end"
            );
        }
    }
    assert!(
        under_way > KILLS,
        "{under_way} requests were under way when the relay was killed"
    );
    println!("{KILLS} kills, {answered} answers, {under_way} requests under way at a kill, each with one end");
}
