//! `harness up SOCKET`: the stack, kept running, with a door for MCP clients outside of the world.
//!
//! The door is a unix socket on the machine's own file system, for the user who typed `make up` and nobody else. Behind it
//! each connection is a `writ-relay stdio` of alice's. `harness stdio SOCKET` is the client's end.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;

use crate::control::connect;
use crate::ids::ALICE;
use crate::spawn::spawn;
use crate::stack::Stack;

/// Starts the stack, prints what an MCP client needs, and serves until it is stopped.
pub fn up(socket: &Path) -> Result<()> {
    let mut stack = Stack::usual()?;
    let listener = listen(socket)?;
    let program = stack.world().program("harness")?;
    let stanza = json!({"mcpServers": {"writ": {"command": program, "args": ["stdio", socket]}}});
    // In one piece: who reads it may be content with the stanza and close its end.
    let text = format!(
        "{}\n\nFor an MCP client of this account, until Ctrl-C:\n\n{}\n\nTry: tail /var/log/shop/web.log on web-1.\n",
        summary(&stack),
        serde_json::to_string_pretty(&stanza)?
    );
    io::stdout().write_all(text.as_bytes())?;
    io::stdout().flush()?;
    // Until Ctrl-C, which ends this process and the world with it; or until relay or CA are gone.
    listener.set_nonblocking(true)?;
    loop {
        stack.control.check()?;
        match listener.accept() {
            Ok((connection, _)) => serve(&stack, connection)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies standard input and output to the socket and back: what the stanza starts.
pub fn stdio(socket: &Path) -> Result<()> {
    let stream =
        connect(socket).with_context(|| format!("nobody listens on {}: is `make up` running?", socket.display()))?;
    let mut up = stream.try_clone()?;
    thread::spawn(move || {
        let _ = copy(&mut io::stdin().lock(), &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    let mut from = stream;
    copy(&mut from, &mut io::stdout().lock())?;
    Ok(())
}

/// Passes on what there is as soon as it is there; [`io::copy`] may splice, and then waits for more.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => {
                to.write_all(buffer.get(..bytes).unwrap_or_default())?;
                to.flush()?;
            }
        }
    }
}

fn listen(socket: &Path) -> Result<UnixListener> {
    let folder = socket.parent().ok_or_else(|| anyhow!("no folder for the socket"))?;
    let name = socket.file_name().ok_or_else(|| anyhow!("no name for the socket"))?;
    let _ = fs::remove_file(socket);
    // Bound by its short name: an address holds 107 bytes, and a checkout may lie deep.
    std::env::set_current_dir(folder)?;
    let listener = UnixListener::bind(name).with_context(|| format!("failed to listen on {}", socket.display()))?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// One client: its socket becomes standard input and output of alice's `writ-relay stdio`.
fn serve(stack: &Stack, connection: UnixStream) -> Result<()> {
    connection.set_nonblocking(false)?;
    let mut command = stack.control.command(ALICE, "writ-relay");
    command
        .arg("stdio")
        .stdin(OwnedFd::from(connection.try_clone()?))
        .stdout(OwnedFd::from(connection))
        .stderr(Stdio::null());
    let mut child = spawn(command)?;
    thread::spawn(move || child.wait());
    Ok(())
}

fn summary(stack: &Stack) -> String {
    let mut lines = vec![format!(
        "relay, CA and {} targets run, all in namespaces of their own:",
        stack.targets.len()
    )];
    for target in &stack.targets {
        lines.push(format!(
            "  {:<8} {:<18} {}",
            target.name(),
            target.address(),
            target.sshd_version().unwrap_or_default()
        ));
    }
    lines.join("\n")
}
