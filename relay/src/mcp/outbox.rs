//! What a client was answered and has not taken yet.
//!
//! An answer is turned into its line at once, counted, and written when those before it are. A client that does not take
//! one in time, or is too far behind, loses its connection: half a line may have gone out, and nothing may follow it.

use std::io;
use std::time::Duration;

use rmcp::model::ServerJsonRpcMessage;
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::Mutex;

use crate::gate::{Account, Bytes};

/// Longest wait for a client to take an answer.
const WRITE: Duration = Duration::from_secs(30);

/// One connection's answers.
pub(super) struct Outbox<S> {
    half: Mutex<WriteHalf<S>>,
    account: Account,
    uid: u32,
    write: Duration,
}

/// An answer as it goes out, counted as long as it is here.
pub(super) struct Line {
    line: Vec<u8>,
    _held: Bytes,
}

impl<S: AsyncWrite> Outbox<S> {
    pub(super) fn new(half: WriteHalf<S>, account: Account, uid: u32) -> Self {
        Self {
            half: Mutex::new(half),
            account,
            uid,
            write: WRITE,
        }
    }

    /// The line of an answer, unless its connection was cut.
    pub(super) fn line(&self, message: &ServerJsonRpcMessage) -> io::Result<Line> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        line.shrink_to_fit();
        let held = self.account.hold(line.len()).ok_or_else(|| {
            tracing::warn!(
                uid = self.uid,
                "a client does not read its answers: its connection is closed"
            );
            io::ErrorKind::ConnectionAborted
        })?;
        Ok(Line { line, _held: held })
    }

    /// Writes a line after those before it.
    pub(super) async fn write(&self, line: Line) -> io::Result<()> {
        let written = async {
            let mut half = self.half.lock().await;
            let whole = async {
                half.write_all(&line.line).await?;
                half.flush().await
            };
            let written = tokio::time::timeout(self.write, whole).await;
            let written = written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            if let Err(error) = &written {
                tracing::info!(uid = self.uid, %error, "a client did not take an answer");
                // Before the next one gets its turn: half a line may be out.
                self.account.cut();
            }
            written
        };
        tokio::select! {
            biased;
            () = self.account.is_cut() => Err(io::ErrorKind::ConnectionAborted.into()),
            written = written => written,
        }
    }

    /// Returns once nothing can be written any more.
    pub(super) async fn is_cut(&self) {
        self.account.is_cut().await;
    }

    /// Ends the connection.
    pub(super) async fn close(&self) -> io::Result<()> {
        let closed = async { self.half.lock().await.shutdown().await };
        let closed = tokio::time::timeout(self.write, closed).await;
        closed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rmcp::model::{ErrorData, JsonRpcMessage};
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::gate::Answers;

    fn outbox(answers: &Arc<Answers>) -> (Arc<Outbox<DuplexStream>>, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let (_, half) = tokio::io::split(near);
        let mut outbox = Outbox::new(half, answers.account(), 1001);
        outbox.write = Duration::from_millis(50);
        (Arc::new(outbox), far)
    }

    fn message() -> ServerJsonRpcMessage {
        JsonRpcMessage::error(ErrorData::internal_error("x".repeat(200), None), None)
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_an_answer_in_time_gets_no_other() {
        let (outbox, mut far) = outbox(&Arc::default());
        let (first, second) = (outbox.line(&message()).unwrap(), outbox.line(&message()).unwrap());
        let (first, second) = tokio::join!(outbox.write(first), outbox.write(second));
        assert!(first.is_err() && second.is_err());
        outbox.is_cut().await;
        assert!(outbox.line(&message()).is_err());
        outbox.close().await.unwrap();
        let mut taken = Vec::new();
        far.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken.len(), 64, "nothing follows half a line");
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_held_up_to_a_bound_and_then_dropped() {
        let (outbox, _far) = outbox(&Arc::new(Answers::new(1000, 10_000)));
        let lines: Vec<_> = std::iter::from_fn(|| outbox.line(&message()).ok()).take(100).collect();
        let bytes: usize = lines.iter().map(|line| line.line.len()).sum();
        assert!((700..=1000).contains(&bytes), "{bytes}");
        for line in lines {
            assert_eq!(
                outbox.write(line).await.unwrap_err().kind(),
                io::ErrorKind::ConnectionAborted
            );
        }
    }
}
