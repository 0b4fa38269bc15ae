//! `writ-relay stdio`: a pipe between an MCP client's stdin and stdout and the relay's socket, and nothing more.
//!
//! It reads no configuration, holds no key and looks at no byte. It is what a client starts, so it starts fast: two
//! threads and no runtime. When the client closes its end, answers that are still to come are written before it leaves.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

/// Why the pipe did not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or this account may not connect.
    #[error("connect to {path}: is `writ-relay serve` running, and may this account use it (group writ-users)?")]
    Connect {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Stdin, stdout or the socket broke.
    #[error("copy between the client and the relay")]
    Copy(#[from] io::Error),
    /// The relay went first.
    #[error("keep the connection: the relay closed it")]
    RelayLeft,
}

/// Connects to `socket` and copies both ways until one end is done.
///
/// # Errors
/// Any [`Error`].
pub fn run(socket: &Path) -> Result<(), Error> {
    let stream = UnixStream::connect(socket).map_err(|source| Error::Connect {
        path: socket.display().to_string(),
        source,
    })?;
    // Plain files over the same descriptors: std's own stdout would buffer by lines.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    pipe(stream, stdin, stdout)
}

fn pipe(
    stream: UnixStream,
    mut input: impl io::Read + Send + 'static,
    mut output: impl io::Write,
) -> Result<(), Error> {
    let mut to_relay = stream.try_clone()?;
    let upward = thread::spawn(move || {
        let copied = io::copy(&mut input, &mut to_relay);
        // Half closed: the relay sees the end of the input and still answers what it has.
        let _ = to_relay.shutdown(Shutdown::Write);
        copied
    });
    let mut from_relay = stream;
    io::copy(&mut from_relay, &mut output)?;
    if upward.is_finished() {
        return Ok(());
    }
    Err(Error::RelayLeft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn answers_that_come_after_the_end_of_input_are_written() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let relay = thread::spawn(move || {
            let mut asked = String::new();
            far.read_to_string(&mut asked).unwrap();
            far.write_all(format!("you said {asked}").as_bytes()).unwrap();
        });
        let mut answer = Vec::new();
        pipe(near, &b"hello"[..], &mut answer).unwrap();
        relay.join().unwrap();
        assert_eq!(answer, b"you said hello");
    }

    #[test]
    fn a_relay_that_is_not_there_is_said_with_what_to_check() {
        let error = run(Path::new("/nonexistent/relay.sock")).unwrap_err();
        assert!(error.to_string().contains("writ-relay serve"), "{error}");
    }
}
