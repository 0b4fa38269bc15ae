//! "Your own host in ten minutes": the very commands of README, on two machines that have never seen Writ.

use std::fs;
use std::time::Duration;

use harness::bare::{Bare, PERSON};
use harness::spawn::{run_ok, wait_for};
use harness::{McpClient, Session};
use serde_json::{Value, json};

const README: &str = include_str!("../../../../README.md");

/// The blocks of commands below a heading, in their order.
fn blocks(heading: &str) -> Vec<String> {
    let (_, below) = README.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// Types commands on the control host, to their end; what they printed.
fn type_on_control(host: &Bare, commands: &str) -> String {
    let typed = run_ok("the commands", host.typed_on_control(commands), b"");
    String::from_utf8(typed.unwrap_or_else(|error| panic!("{commands}\n{error:?}"))).unwrap()
}

/// Types commands that leave something running, until the session is finished; waits for both sockets.
fn type_and_leave_running(host: &Bare, commands: &str) -> Session {
    let remembered = commands.replace(" &\n", " & left=\"$left $!\"\n");
    let until_the_end = format!("left=\n{remembered}\nread -r _ || true\nkill $left\nwait\n");
    let mut session = Session::over(host.typed_on_control(&until_the_end)).unwrap();
    let sockets = ["run/writ-ca/ca.sock", "run/writ-relay/relay.sock"].map(|socket| host.control().at(socket));
    let up = wait_for("CA and relay", Duration::from_secs(20), || {
        Ok(sockets.iter().all(|socket| socket.exists()) || !session.is_open())
    });
    assert!(up.is_ok() && session.is_open(), "{}", session.errors());
    session
}

/// Ends what was left running, and waits for it.
fn stop(host: &Bare, mut session: Session) {
    session.finish();
    while session.raw_line(Duration::from_secs(30)).unwrap().is_some() {}
    for socket in ["run/writ-ca/ca.sock", "run/writ-relay/relay.sock"] {
        let _ = fs::remove_file(host.control().at(socket));
    }
}

/// What README says to edit: which account is the relay, and who may connect.
fn edit(host: &Bare) {
    let uid = type_on_control(host, "id -u writ-relay");
    let file = "etc/writ/ca.toml";
    let shipped = fs::read_to_string(host.control().at(file)).unwrap();
    let edited = shipped.replace("uid = 64110", &format!("uid = {}", uid.trim()));
    assert_ne!(edited, shipped);
    host.control().file(file, 0o644, edited).unwrap();
    let relay = fs::read_to_string(host.control().at("etc/writ/relay.toml")).unwrap();
    let person = format!("uid = {}\nname = \"{}\"", PERSON.uid, PERSON.name);
    assert!(relay.contains(&person), "{relay}");
    type_on_control(host, "usermod --append --groups writ-users alice");
}

/// REQ-ENROL-2, REQ-ENROL-4, REQ-ENROL-7
#[test]
fn the_commands_of_readme_make_a_host_a_target() {
    let blocks = blocks("Your own host in ten minutes");
    let [install, serve, target, client] = blocks.as_slice() else {
        panic!("{blocks:#?}")
    };
    let host = Bare::build("web-1").unwrap();
    let address = host.target.address().to_string();

    type_on_control(&host, install);
    edit(&host);
    let running = type_and_leave_running(&host, serve);
    // Here sshd listens on a port of its own; everything else is typed as it stands.
    host.type_beside(&target.replace("web-1:22", &address))
        .unwrap_or_else(|error| panic!("{error:?}"));

    // The stanza goes into the relay's inventory, and the relay starts again.
    let stanza = host.errors_of_runuser();
    assert!(stanza.contains("[target.web-1]"), "{stanza}");
    host.control().file("etc/writ/inventory.toml", 0o644, stanza).unwrap();
    stop(&host, running);
    let again: Vec<&str> = serve.lines().filter(|line| line.ends_with('&')).collect();
    assert_eq!(again.len(), 2, "{serve}");
    let running = type_and_leave_running(&host, &format!("{}\n", again.join("\n")));
    type_on_control(&host, "runuser -u writ-relay -- writ-relay targets check");

    let printed = type_on_control(&host, &format!("runuser -u alice -- sh -euc '{client}'"));
    let stanza: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let server = &stanza["mcpServers"]["writ"];
    let mut words = vec![server["command"].as_str().unwrap()];
    words.extend(
        server["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap()),
    );
    let command = format!("exec runuser -u alice -- {}", words.join(" "));
    let mut client = McpClient::start(host.typed_on_control(&command)).unwrap();
    let read = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 2, "reason": "a new host"});
    let read = client.call_ok("tail_log", read).unwrap();
    let output = read["untrusted"]["output"].as_str().unwrap();
    assert!(output.ends_with("GET /cart/400 200\n"), "{output}");

    let said = host.target.sshd_says("agent-runner").unwrap();
    assert!(
        said.contains("hostcertificate /etc/ssh/ssh_host_ed25519_key-cert.pub"),
        "{said}"
    );
    drop(client);
    stop(&host, running);
}
