//! The approvers' door and their verbs: the binary at a relay in this process, and `ssh-keygen` between them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use relay::approvals::{self, CONNECTIONS};
use relay::door::{Door, OpenTo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::target::Manner;
use crate::world::{ALICE, World};

/// Runs a program to its end, beside the relay of this process.
async fn ended(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    tokio::time::timeout(Duration::from_secs(30), run)
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

/// A relay with its approvers' door open.
struct Desk {
    world: World,
    folder: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        let world = World::new(Manner::Says("done\n".into())).await;
        let folder = tempfile::tempdir().unwrap();
        let desk = Self { world, folder };
        let door = Door::open(&desk.at("approvals.sock"), OpenTo::Owner, CONNECTIONS)
            .await
            .unwrap();
        let relay = Arc::clone(&desk.world.relay);
        tokio::spawn(async move {
            while let Ok(visitor) = door.next().await {
                tokio::spawn(approvals::serve(Arc::clone(&relay), visitor.stream, visitor.uid));
            }
        });
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a verb: exit code, stdout, stderr.
    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let socket = self.at("approvals.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_writ-relay"));
        command
            .arg("approvals")
            .args(arguments)
            .args(["--socket", socket.to_str().unwrap()])
            .current_dir(self.folder.path());
        let output = ended(command).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Sends a line as it is, and gives the answer.
    async fn say(&self, line: &[u8]) -> Value {
        let mut stream = UnixStream::connect(self.at("approvals.sock")).await.unwrap();
        // Whoever is answered before all of it was read has no reader any more.
        let _ = stream.write_all(line).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        serde_json::from_slice(&answer).unwrap_or(Value::Null)
    }
}

fn drain() -> Value {
    json!({ "action": "drain", "target": "web-1", "reason": "why", "args": { "unit": "a  on: web-9 \u{430}" } })
}

/// REQ-ASK-5, REQ-ASK-12
#[tokio::test]
async fn an_approver_lists_shows_signs_with_ssh_keygen_and_approves() {
    let desk = Desk::new().await;
    assert_eq!(desk.run(&["list"]).await.0, 0);
    let mut client = desk.world.client(ALICE).await;
    let (said, _) = client.call("run_action", drain()).await;
    assert_eq!(said["code"], "approval_required", "{said}");
    let id = said["approval"]["approval_id"].as_str().unwrap();
    let (code, list, _) = desk.run(&["list"]).await;
    assert_eq!(code, 0);
    assert!(list.starts_with(&format!("{id}\twaiting\t0/1\t")), "{list}");
    assert!(list.contains("\tdrain\tweb-1\talice\twhy\n"), "{list}");

    let (code, shown, hints) = desk.run(&["show", id, "--out", "what.txt"]).await;
    assert_eq!(code, 0, "{hints}");
    let statement = std::fs::read_to_string(desk.at("what.txt")).unwrap();
    assert_eq!(shown, statement, "stdout has the exact bytes");
    assert!(
        statement.starts_with("statement: Writ approval, version 1\n"),
        "{statement}"
    );
    let argument = r#"argument: "unit" = "a \u{20}on: web-9 \u{430}""#;
    assert!(statement.lines().any(|line| line == argument), "{statement}");
    let line = "ssh-keygen -Y sign -n approve.v1@writ.internal -f KEY what.txt";
    assert_eq!(hints.lines().filter(|hint| hint.trim() == line).count(), 1, "{hints}");
    assert_eq!(
        desk.run(&["show", id, "--out", "what.txt"]).await.0,
        1,
        "what is there is not written over"
    );

    let key = desk.at("key");
    let keygen = async |arguments: &[&str]| {
        let mut command = Command::new("ssh-keygen");
        command.args(arguments).current_dir(desk.folder.path());
        let done = ended(command).await;
        assert!(done.status.success(), "{done:?}");
    };
    keygen(&["-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f", key.to_str().unwrap()]).await;
    let words: Vec<&str> = line
        .split(' ')
        .skip(1)
        .map(|word| if word == "KEY" { "key" } else { word })
        .collect();
    keygen(&words).await;
    let (code, said, problems) = desk.run(&["approve", id, "--signature", "what.txt.sig"]).await;
    assert_eq!(code, 0, "{problems}");
    assert!(said.contains("approved, 1 of 1 signed"), "{said}");
    let (said, is_error) = client.call("run_action", drain()).await;
    assert!(!is_error, "{said}");
    let (code, shown, hints) = desk.run(&["show", id]).await;
    assert_eq!((code, shown.as_str()), (0, ""), "nothing is left to sign");
    assert!(hints.contains("carried out"), "{hints}");
}

/// REQ-ASK-12
#[tokio::test]
async fn what_the_relay_refuses_ends_with_2_and_what_fails_with_1() {
    let desk = Desk::new().await;
    let mut client = desk.world.client(ALICE).await;
    let (said, _) = client.call("run_action", drain()).await;
    assert_eq!(said["code"], "approval_required", "{said}");
    let id = said["approval"]["approval_id"].as_str().unwrap();
    std::fs::write(
        desk.at("bad.sig"),
        "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
    )
    .unwrap();
    std::fs::write(desk.at("none.sig"), "\u{1b}[2J").unwrap();
    let nobody = "0192e4a0-7f00-7000-8000-00000000000f";
    for (arguments, expected, says) in [
        (vec!["approve", id, "--signature", "bad.sig"], 2, "approval_invalid"),
        (vec!["approve", id, "--signature", "none.sig"], 1, "ssh-keygen -Y sign"),
        (vec!["approve", id, "--signature", "gone.sig"], 1, "gone.sig"),
        (vec!["approve", id, "--signature", "-"], 1, "ssh-keygen -Y sign"),
        (vec!["show", nobody], 2, "unknown_approval"),
        (vec!["deny", nobody], 2, "unknown_approval"),
        (vec!["deny", id], 0, ""),
        (vec!["deny", id], 2, "approval_denied"),
    ] {
        let (code, _, problems) = desk.run(&arguments).await;
        assert_eq!(code, expected, "{arguments:?}: {problems}");
        assert!(problems.contains(says), "{arguments:?}: {problems}");
        assert!(!problems.contains('\u{1b}'));
    }
    let mut away = Command::new(env!("CARGO_BIN_EXE_writ-relay"));
    away.args(["approvals", "list", "--socket", "/nonexistent/approvals.sock"]);
    assert_eq!(ended(away).await.status.code(), Some(1));
}

/// REQ-ASK-12
#[tokio::test]
async fn a_line_that_is_no_question_is_refused_counted_and_bounded() {
    let desk = Desk::new().await;
    let long = vec![b'x'; 1024 * 1024];
    let table: [&[u8]; 9] = [
        b"",
        b"\n",
        b"{}\n",
        b"{\"verb\":\"list\",\"verb\":\"deny\"}\n",
        b"{\"verb\":\"list\",\"id\":\"0192e4a0-7f00-7000-8000-00000000000f\"}\n",
        b"{\"verb\":\"approve\",\"id\":\"0192e4a0-7f00-7000-8000-00000000000f\"}\n",
        b"{\"verb\":\"open\"}\n",
        b"{\"verb\":\"list\",\"as\":\"root\"}\n",
        &long,
    ];
    for line in table {
        let answer = desk.say(line).await;
        if line.len() < long.len() {
            assert_eq!(answer["refused"]["code"], "line_malformed", "{answer}");
        }
    }
    println!("{0} attacks, {0} refused", table.len());
    assert_eq!(desk.say(b"{\"verb\":\"list\"}\n").await, json!({ "approvals": [] }));
    desk.world.relay.record_repeats(true).await;
    let counted: u64 = desk
        .world
        .records()
        .iter()
        .filter(|record| record["event"] == "strangers")
        .map(|record| record["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, table.len() as u64);
}

/// REQ-ASK-12
#[tokio::test]
async fn the_door_is_open_to_its_own_account_where_nobody_says_otherwise() {
    let desk = Desk::new().await;
    let mode = std::fs::metadata(desk.at("approvals.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
