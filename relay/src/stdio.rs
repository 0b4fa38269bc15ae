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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    let input_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&input_ended);
    thread::spawn(move || {
        let copied = copy(&mut input, &mut to_relay);
        ended.store(true, Ordering::SeqCst);
        // Half closed: the relay sees the end of the input and still answers what it has.
        let _ = to_relay.shutdown(Shutdown::Write);
        copied
    });
    let mut from_relay = stream;
    copy(&mut from_relay, &mut output)?;
    if input_ended.load(Ordering::SeqCst) {
        Ok(())
    } else {
        Err(Error::RelayLeft)
    }
}

/// Passes on what there is as soon as it is there. Not [`io::copy`], which splices pipes and may wait for more: a
/// question would lie in the kernel while its client waits for the answer.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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
    fn a_question_through_pipes_is_passed_on_at_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = far.read(&mut buffer) {
                far.write_all(&buffer[..count]).unwrap();
            }
        });
        let (input, mut questions) = io::pipe().unwrap();
        let (mut answers, output) = io::pipe().unwrap();
        let file = |end: std::os::fd::OwnedFd| File::from(end);
        let running = thread::spawn(move || pipe(near, file(input.into()), file(output.into())));
        for question in [b"one", b"two"] {
            questions.write_all(question).unwrap();
            let mut answer = [0; 3];
            answers.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, question);
        }
        drop(questions);
        running.join().unwrap().unwrap();
    }

    #[test]
    fn a_relay_that_is_not_there_is_said_with_what_to_check() {
        let error = run(Path::new("/nonexistent/relay.sock")).unwrap_err();
        assert!(error.to_string().contains("writ-relay serve"), "{error}");
    }
}
