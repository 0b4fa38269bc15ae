//! A brain that was taken over: it holds a client's connection to the real relay, and calls whatever comes to its mind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::collections::{BTreeMap, BTreeSet};

use harness::evidence::Evidence;
use harness::{ALICE, BOB, McpClient, Options, Stack, effects, records};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security::{LOG, WEB};
use serde_json::{Map, Value, json};

/// How many calls it makes.
const CALLS: usize = 1000;
/// Where nobody may change anything.
const OTHER: &str = "web-2";
/// Readable for everybody on every target, and beneath no folder of an action.
const SECRET: &str = "srv/secret.txt";
/// What stands there.
const CANARY: &str = "CANARY-2f6d81";

/// Everything the person may do: the shipped reads, and one change on one target, with no word that begins so.
fn options() -> Options {
    let change = format!(
        "@id(\"change\")\npermit (principal, action == Action::\"{}\", resource == Target::\"{WEB}\");\n",
        effects::ACTION
    );
    let reads = "@id(\"reads\")\npermit (principal, action in [Action::\"tail_log\", Action::\"read_file\", \
                 Action::\"check_health\"], resource);\n";
    Options {
        targets: vec![WEB, OTHER],
        policy: Some([reads, &change].concat()),
        ..effects::options()
    }
}

const RULE: &str =
    "\n[[deny]]\nid = \"no-forbidden\"\nactions = \"count_effect\"\nargs.word = { starts_with = \"forbidden\" }\n";

/// What it has to call with, and what it has tried.
struct Brain {
    random: StdRng,
    /// Ids of tasks: its own, one that is closed, another person's.
    tasks: Vec<String>,
    /// The words that it had a right to write, by whether the answer said that they were.
    words: BTreeMap<String, Vec<Value>>,
}

impl Brain {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())].clone()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// Anything at all.
    fn value(&mut self, depth: u32) -> Value {
        let texts = [
            "",
            " ",
            "-rf",
            "--",
            "@/etc/shadow",
            "; id",
            "$(id)",
            "web-1",
            "WEB-1",
            "web-2",
            "127.0.0.1",
            "../../etc/passwd",
            "\u{202e}",
            "\u{e0041}",
            "null",
            "root",
            "alice",
            "bob",
            "run",
            "dry_run",
            "count_effect",
        ];
        match self.random.random_range(0..9) {
            0 => Value::Null,
            1 => self.random.random_bool(0.5).into(),
            2 => self.random.random_range(-5_i64..5).into(),
            3 => self.one(&[
                json!(i64::MAX),
                json!(u64::MAX),
                json!(1.5),
                json!(-0.0),
                json!(9_007_199_254_740_993_i64),
            ]),
            4 => "x".repeat(self.random.random_range(0..20_000)).into(),
            5 if depth > 0 => (0..self.random.random_range(0..4))
                .map(|_| self.value(depth - 1))
                .collect(),
            6 if depth > 0 => {
                let fields = (0..self.random.random_range(0..4)).map(|_| (self.key(), self.value(depth - 1)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            _ => self.one(&texts).into(),
        }
    }

    fn key(&mut self) -> String {
        let keys = [
            "action",
            "args",
            "target",
            "targets",
            "task_id",
            "reason",
            "mode",
            "word",
            "path",
            "lines",
            "probe",
            "cursor",
            "words",
            "risk",
            "offset",
            "encoding",
            "length",
            "request_id",
            "approval",
            "__proto__",
            "",
        ];
        self.one(&keys).to_owned()
    }

    fn task(&mut self) -> Value {
        let tasks = self.tasks.clone();
        match self.random.random_range(0..10) {
            0 => self.value(1),
            1 => "00000000-0000-7000-8000-000000000000".into(),
            _ => self.one(&tasks).into(),
        }
    }

    fn path(&mut self) -> Value {
        let secret = format!("/{SECRET}");
        let paths = [
            LOG.to_owned(),
            LOG.to_owned(),
            secret.clone(),
            format!("/var/log/../..{secret}"),
            format!("/var/log/shop/../../..{secret}"),
            format!("//{}", &secret[1..]),
            "/var/log/shop".to_owned(),
            "/proc/self/environ".to_owned(),
            "/etc/writ/receipt.key".to_owned(),
            "/var/lib/writ/ledger".to_owned(),
            "/etc/passwd\0".to_owned(),
            "shop/web.log".to_owned(),
        ];
        self.one(&paths).into()
    }

    /// Where: mostly a target that there is.
    fn place(&mut self) -> Value {
        match self.random.random_range(0..12) {
            0 => self.value(1),
            1 => self.one(&["control", "web-3", "web-1 ", "web-1.", "localhost"]).into(),
            2..=4 => OTHER.into(),
            _ => WEB.into(),
        }
    }

    /// A call of an action that counts, of which it is known whether the grant and the relay's rule have it.
    fn change(&mut self, number: usize) -> (Value, Option<String>) {
        let word = format!("w{number}");
        let forbidden = ["forbidden", "Forbidden", " forbidden", "for\u{200b}bidden"];
        let (word, allowed) = if self.chance(30) {
            (format!("{}-{word}", self.one(&forbidden)), false)
        } else {
            (word, true)
        };
        let action = self.one(&[
            effects::ACTION,
            effects::ACTION,
            effects::ACTION,
            effects::ACTION,
            effects::ACTION,
            effects::QUICK,
            "count_effect ",
            "COUNT_EFFECT",
        ]);
        let (target, mode) = (
            self.place(),
            self.one(&["run", "run", "run", "run", "run", "dry_run", "RUN"]),
        );
        let args = json!({ "word": word });
        let mut call = json!({ "action": action, "target": target, "args": args, "mode": mode, "reason": "why not" });
        if self.chance(25) {
            call["task_id"] = self.task();
        }
        let allowed = allowed && action == effects::ACTION && target == WEB && mode == "run";
        (call, allowed.then_some(word))
    }

    /// A tool and its arguments.
    fn call(&mut self, number: usize) -> (String, Value, Option<String>) {
        let tools = [
            "list_targets",
            "open_task",
            "task_status",
            "close_task",
            "tail_log",
            "read_file",
            "check_health",
            "restart_service",
            "run_migration",
            "find_actions",
            "run_action",
            "server_info",
            "bash",
            "Run_Action",
            "tools/call",
            "../run_action",
            "count_effect",
            "",
        ];
        let (tool, mut call, word) = match self.random.random_range(0..10) {
            0..=2 => {
                let (call, word) = self.change(number);
                ("run_action", call, word)
            }
            3 | 4 => {
                let tool = self.one(&["tail_log", "read_file"]);
                let call =
                    json!({ "target": self.place(), "path": self.path(), "reason": "why not", "task_id": self.task() });
                (tool, call, None)
            }
            5 => {
                let args = json!({ "path": self.path() });
                let call = json!({ "action": "read_file", "target": self.place(), "args": args, "reason": "why not" });
                ("run_action", call, None)
            }
            6 => (
                self.one(&["task_status", "close_task"]),
                json!({ "task_id": self.task() }),
                None,
            ),
            7 => {
                let targets: Vec<Value> = (0..self.random.random_range(0..3)).map(|_| self.place()).collect();
                ("open_task", json!({ "reason": "why not", "targets": targets }), None)
            }
            _ => {
                let mut call = Map::new();
                for _ in 0..self.random.random_range(0..5) {
                    let key = self.key();
                    // A gate that is given is waited at until the action's time is over.
                    call.insert(key, self.value(3));
                }
                (self.one(&tools), Value::Object(call), None)
            }
        };
        if self.chance(10)
            && let Some(call) = call.as_object_mut()
        {
            // One thing is not as it was: whatever it had a right to, it may have lost.
            let key = self.key();
            let value = self.value(2);
            call.insert(key, value);
            let kept = word.filter(|_| call["action"] == effects::ACTION && call["target"] == WEB);
            let kept = kept.filter(|word| call["args"] == json!({ "word": word }));
            return (tool.to_owned(), Value::Object(call.clone()), kept);
        }
        (tool.to_owned(), call, word)
    }

    /// Bytes that are no call.
    fn noise(&mut self) -> Vec<u8> {
        let call = r#"{"jsonrpc":"2.0","id":9000001,"method":"tools/call","params":{"name":"run_action","arguments":"#;
        let change = r#"{"action":"count_effect","target":"web-2","reason":"why","args":{"word":"noise"}}"#;
        let texts: [Vec<u8>; 14] = [
            b"{".to_vec(),
            b"\xff\xfe\x00".to_vec(),
            b"[]".to_vec(),
            format!("[{call}{change}}}}}]").into_bytes(),
            format!("{call}{change}").into_bytes(),
            format!("{call}{change}}}}}{call}{change}}}}}").into_bytes(),
            format!("{call}{}}}}}", change.replace("web-2", "web-2\",\"target\":\"web-1")).into_bytes(),
            format!("{call}{}}}}}", change.replace("{\"word\"", "{\"word\":\"a\",\"word\"")).into_bytes(),
            br#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"run_action","arguments":{}}}"#.to_vec(),
            br#"{"jsonrpc":"2.0","id":9000002,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}"#
                .to_vec(),
            br#"{"jsonrpc":"2.0","id":9000003,"method":"sampling/createMessage","params":{}}"#.to_vec(),
            br#"{"jsonrpc":"1.0","id":9000004,"method":"tools/list"}"#.to_vec(),
            br#"{"jsonrpc":"2.0","id":{"a":1},"method":"tools/list"}"#.to_vec(),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r".to_vec(),
        ];
        self.one(&texts)
    }
}

/// What came of it, of each kind.
#[derive(Default)]
struct Tally {
    ok: usize,
    refused: BTreeMap<String, usize>,
    errors: usize,
}

impl Tally {
    fn note(&mut self, answer: &Value, is_error: bool) {
        let text = answer.to_string();
        assert!(!text.contains(CANARY), "{text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        if !is_error {
            self.ok += 1;
            return;
        }
        let code = answer["code"].as_str().unwrap_or_else(|| panic!("no Code: {answer}"));
        assert!(!["internal", "receipt_invalid"].contains(&code), "{answer}");
        assert!(
            answer["next"].as_str().is_some_and(|next| next.ends_with('.')),
            "{answer}"
        );
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }
}

/// A task of a person, on both targets.
fn open(client: &mut McpClient) -> String {
    let call = json!({ "reason": "a test", "targets": [WEB, OTHER] });
    let task = client.call_ok("open_task", call).unwrap();
    task["task_id"].as_str().unwrap().to_owned()
}

fn start() -> Stack {
    let mut stack = Stack::start(&options()).unwrap();
    for target in &stack.targets {
        target.root().file(SECRET, 0o644, CANARY).unwrap();
    }
    let root = stack.control.root();
    let read = |file: &str| std::fs::read_to_string(root.at(file)).unwrap();
    let ca = read("etc/writ/ca.toml").replace("[\"alice\"]", "[\"alice\", \"bob\"]");
    root.file("etc/writ/ca.toml", 0o644, ca).unwrap();
    root.file("etc/writ/relay.toml", 0o644, read("etc/writ/relay.toml") + RULE)
        .unwrap();
    stack.control.stop_relay();
    stack.control.stop_ca();
    stack.control.start_ca().unwrap();
    stack.control.start_relay().unwrap();
    stack
}

/// A thousand calls, malformed ones and other people's tasks among them: nothing is done that the grant does not give and the
/// relay's rule does not leave, nothing is shown, and the relay goes on.
#[test]
fn brain_evil_script() {
    let mut stack = start();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut bob = stack.client(BOB).unwrap();
    let bobs = open(&mut bob);
    let mut client = stack.client(ALICE).unwrap();
    let (own, over) = (open(&mut client), open(&mut client));
    client.call_ok("close_task", json!({ "task_id": over })).unwrap();
    let mut brain = Brain {
        random: StdRng::seed_from_u64(seed),
        tasks: vec![own, over, bobs.clone()],
        words: BTreeMap::new(),
    };
    let relay = stack.control.pids().0;
    let mut tally = Tally::default();
    for number in 0..CALLS {
        if brain.chance(10) {
            let noise = brain.noise();
            client.send_raw(&noise).unwrap();
            // Whatever is said to it, a call behind it is answered.
            client.call_ok("list_targets", json!({})).unwrap();
            tally.errors += 1;
            continue;
        }
        let (tool, arguments, word) = brain.call(number);
        match client.call(&tool, arguments) {
            Ok(called) => {
                tally.note(&called.value, called.is_error);
                if let Some(word) = word {
                    brain.words.entry(word).or_default().push(called.value);
                }
            }
            // MCP's own errors: a tool or a message that is none.
            Err(error) => {
                assert!(error.to_string().contains("\"code\""), "{error:#}");
                tally.errors += 1;
            }
        }
    }
    judge(&stack, &brain, &bobs);
    assert_eq!(stack.control.pids().0, relay);
    stack.control.check().unwrap();
    let errors = stack.control.errors_of("writ-relay");
    assert!(!errors.contains("panicked"), "{errors}");
    // Both go on working.
    for person in [&mut client, &mut bob] {
        let read = json!({ "target": WEB, "path": LOG, "reason": "a test" });
        person.call_ok("tail_log", read).unwrap();
    }
    let done = effects::all(stack.target(WEB).unwrap()).unwrap().len();
    let refused: usize = tally.refused.values().sum();
    assert!(
        done > 0 && tally.ok > 0 && refused > CALLS / 4,
        "a script that tries nothing shows nothing"
    );
    println!("refused: {:?}", tally.refused);
    println!(
        "{CALLS} calls: {} answered, {refused} refused, {} that were none; {done} effects, all inside the grant",
        tally.ok, tally.errors
    );
}

/// What was done, by the files that it was done to and by every log.
fn judge(stack: &Stack, brain: &Brain, bobs: &str) {
    let done = effects::all(stack.target(WEB).unwrap()).unwrap();
    for word in &done {
        let answers = brain
            .words
            .get(word)
            .unwrap_or_else(|| panic!("{word} was written, and nobody gave that"));
        assert!(
            answers.iter().any(|answer| answer["status"] == "ok"),
            "{word}: {answers:?}"
        );
    }
    let distinct: BTreeSet<&String> = done.iter().collect();
    assert_eq!(distinct.len(), done.len(), "each once: {done:?}");
    for (word, answers) in &brain.words {
        let said = answers.iter().any(|answer| answer["status"] == "ok");
        assert_eq!(said, done.contains(word), "{word}: {answers:?}");
    }
    assert!(effects::all(stack.target(OTHER).unwrap()).unwrap().is_empty());
    for target in &stack.targets {
        for record in target
            .records()
            .unwrap()
            .iter()
            .filter(|record| records::is(record, "intent"))
        {
            let action = records::of(record, "action").unwrap();
            let reads = ["tail_log", "read_file", "check_health"].contains(&action);
            assert!(reads || (action == effects::ACTION && target.name() == WEB), "{record}");
            assert_eq!(record["requester"]["person"], "alice", "{record}");
            assert_ne!(records::of(record, "task_id"), Some(bobs), "{record}");
        }
    }
    let authorized = stack.control.records_ca().unwrap();
    for record in authorized.iter().filter(|record| records::is(record, "authorize")) {
        assert_eq!(
            (records::of(record, "action"), records::of(record, "target")),
            (Some(effects::ACTION), Some(WEB)),
            "{record}"
        );
    }
    let said = Evidence::copy(stack, "after-the-script").unwrap().verify().unwrap();
    assert_eq!(said.exit, 0, "{:?}", said.faults());
}
