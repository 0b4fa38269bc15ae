//! How much memory the binary takes, by the kernel's word.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::binary::Room;
use crate::ca::Facts;
use crate::kills::{Client, log, room, serve, tail};
use crate::target::Manner;

/// A line of /proc/PID/status, in KiB.
fn status(relay: &Child, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
}

fn stop(relay: &mut Child) {
    kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn line_without_newline_of_a_gib_takes_no_memory() {
    let room = room(Manner::Mute, Facts::generous()).await;
    tokio::task::spawn_blocking(move || endless_line(&room)).await.unwrap();
}

fn endless_line(room: &Room) {
    let mut relay = serve(room);
    let mut client = Client::connect(room, 1);
    let before = status(&relay, "VmHWM");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        assert!(client.write(&chunk));
    }
    assert!(client.write(b"\n"));
    let said = client.read().unwrap();
    assert_eq!(said["error"]["data"]["code"], "message_too_long", "{said}");
    assert!(
        client.call("list_targets", &json!({})).is_some(),
        "the connection lives"
    );
    let after = status(&relay, "VmHWM");
    println!("a line of 1 GiB: {before} KiB before, {after} KiB at most");
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
    stop(&mut relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_end_their_connection_and_not_their_calls() {
    // Each of these is 2.2 MiB when it is made visible, twice.
    let room = room(Manner::Says("\u{1b}".repeat(150_000)), Facts::generous()).await;
    tokio::task::spawn_blocking(move || unread(&room)).await.unwrap();
}

/// How many clients the relay has a connection with.
fn connections(room: &Room) -> usize {
    // The kernel knows it by the name that it was bound to.
    let socket = room.at("run/relay.sock.new");
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let of_this = sockets.lines().filter(|line| line.ends_with(socket.to_str().unwrap()));
    // The one that listens is there too.
    of_this.count() - 1
}

fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "it does not come to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const UNREAD: usize = 3;
const CALLS: usize = 32;

fn unread(room: &Room) {
    let mut relay = serve(room);
    let mut good = Client::connect(room, 9);
    assert!(
        good.call("open_task", &json!({ "reason": "why", "targets": ["web-1"] }))
            .unwrap()["task_id"]
            .is_string()
    );
    let before = status(&relay, "VmHWM");
    let mut clients: Vec<_> = (0..UNREAD).map(|number| Client::connect(room, number)).collect();
    for client in &mut clients {
        client
            .call("open_task", &json!({ "reason": "why", "targets": ["web-1"] }))
            .unwrap();
        for _ in 0..CALLS {
            client.begin("tail_log", &tail(json!({})));
        }
    }
    // The good one is left, and a call that was taken is one that ends.
    wait_until(|| connections(room) == 1);
    let count = |of: &str| log(room).keys().filter(|(_, event)| event == of).count();
    wait_until(|| count("outcome") == count("request"));
    let taken = count("request");
    let held = status(&relay, "VmRSS");
    let most = status(&relay, "VmHWM");
    println!(
        "{UNREAD} clients that do not read, {taken} calls of theirs: {before} KiB before, {held} KiB after, {most} KiB at most"
    );
    for client in &mut clients {
        let mut answers = 0;
        while client.whole_line() {
            answers += 1;
        }
        assert!(answers < CALLS, "{answers} answers of a client that did not read");
    }
    assert_eq!(
        good.call("tail_log", &tail(json!({}))).unwrap()["status"],
        "ok",
        "others are served"
    );
    assert!(most < before + 160 * 1024, "{most} KiB");
    stop(&mut relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_and_a_task_with_its_connection_take_little() {
    let room = room(Manner::Says("text".into()), Facts::generous()).await;
    tokio::task::spawn_blocking(move || at_rest(&room)).await.unwrap();
}

/// As many as one person may have open.
const TASKS: u64 = 32;

fn at_rest(room: &Room) {
    let mut relay = serve(room);
    let idle = status(&relay, "VmRSS");
    let mut client = Client::connect(room, 1);
    let mut open = || {
        let opened = client
            .call("open_task", &json!({ "reason": "why", "targets": ["web-1"] }))
            .unwrap();
        let said = client
            .call("tail_log", &tail(json!({ "task_id": opened["task_id"] })))
            .unwrap();
        assert_eq!(said["status"], "ok", "{said}");
    };
    open();
    let first = status(&relay, "VmRSS");
    for _ in 1..TASKS {
        open();
    }
    // It may even have given some back.
    let each = status(&relay, "VmRSS").saturating_sub(first) / (TASKS - 1);
    println!("{idle} KiB idle, {first} KiB with one task, {each} KiB for each further one");
    assert!(idle < 25 * 1024, "{idle} KiB");
    assert!(each < 250, "{each} KiB");
    stop(&mut relay);
}
