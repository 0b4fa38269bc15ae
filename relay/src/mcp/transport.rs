//! Lines of JSON-RPC between a client and the protocol's library, with our bounds and our strictness.
//!
//! The library takes what it is given: duplicate keys, lines of any length, any number of requests at once. Here a line
//! has at most 1 MiB, a connection has at most so many requests on their way, and the arguments of a call are the JSON
//! that every tier reads one way. What is wrong is answered with a Code, and the connection lives on. It ends when its
//! client does not read its answers, and with the relay.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorCode, ErrorData, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wire::Code;

use super::outbox::Outbox;
use super::reply;
use crate::call::Caller;
use crate::call::DESK;
use crate::error::{About, Refusal};
use crate::lines::{Lines, Piece};
use crate::lock::lock;
use crate::pipeline::Relay;

/// Longest line of a client, in bytes.
const LINE: usize = 1024 * 1024;
/// Requests of one client that may be on their way at once.
const AT_ONCE: usize = 32;
/// How many more of those that touch no target.
const MORE_AT_THE_DESK: usize = 8;
/// How long answers are waited for after a client has closed its end.
const LINGER: Duration = Duration::from_secs(60);

/// Put beside a request whose arguments were refused before the library read them.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    why: String,
}

impl Refused {
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::because(Code::ArgumentsInvalid, &self.why, &About::default())
    }
}

/// The transport of one connection.
pub(super) struct LineTransport<S> {
    read: ReadHalf<S>,
    outbox: Arc<Outbox<S>>,
    lines: Lines,
    buffer: Vec<u8>,
    on_their_way: Arc<OnTheirWay>,
    /// An answer of our own that is being written: a task, because `receive` may be dropped at any await.
    answering: Option<JoinHandle<()>>,
    relay: Arc<Relay>,
    uid: u32,
}

/// Requests that were handed up and not yet answered.
#[derive(Default)]
struct OnTheirWay {
    ids: Mutex<HashSet<RequestId>>,
    fewer: Notify,
}

impl OnTheirWay {
    fn ids(&self) -> MutexGuard<'_, HashSet<RequestId>> {
        lock(&self.ids)
    }

    /// Counts a request in, where there is room: more of it for what touches no target.
    fn admit(&self, id: &RequestId, tool: Option<&str>) -> Admitted {
        let at_the_desk = tool.is_none_or(|tool| DESK.contains(&tool));
        let room = if at_the_desk {
            AT_ONCE + MORE_AT_THE_DESK
        } else {
            AT_ONCE
        };
        let mut ids = self.ids();
        if ids.contains(id) {
            return Admitted::Twice;
        }
        if ids.len() >= room {
            return Admitted::TooMany;
        }
        ids.insert(id.clone());
        Admitted::Yes
    }

    fn done(&self, id: &RequestId) {
        self.ids().remove(id);
        self.fewer.notify_waiters();
    }

    async fn none_left(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.ids().is_empty() {
                return;
            }
            fewer.await;
        }
    }
}

/// Whether a request was counted in.
enum Admitted {
    Yes,
    /// Another one of its id is on its way.
    Twice,
    /// As many as may be are.
    TooMany,
}

/// What of a message is looked at before the library does. A key that stands twice is refused by this.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default, rename = "id")]
    _id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallParams<'a> {
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "name")]
    _name: Option<&'a RawValue>,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> LineTransport<S> {
    pub(super) fn new(stream: S, relay: Arc<Relay>, uid: u32) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            read,
            outbox: Arc::new(Outbox::new(write, relay.gate.answers.account(), uid)),
            lines: Lines::new(LINE),
            buffer: vec![0; 16 * 1024],
            on_their_way: Arc::default(),
            answering: None,
            relay,
            uid,
        }
    }

    /// One line: a message for the library, or nothing because it was answered here.
    fn take(&mut self, piece: Piece) -> Option<ClientJsonRpcMessage> {
        let line = match piece {
            Piece::Line(line) if line.iter().all(u8::is_ascii_whitespace) => return None,
            Piece::Line(line) => line,
            Piece::TooLong => return self.bad_line(Code::MessageTooLong, ErrorCode::INVALID_REQUEST),
        };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&line) else {
            return self.bad_line(Code::LineMalformed, ErrorCode::PARSE_ERROR);
        };
        let why = if envelope.method.as_deref() == Some("tools/call") {
            check_arguments(envelope.params)
        } else {
            None
        };
        let Ok(mut message) = serde_json::from_slice::<ClientJsonRpcMessage>(&line) else {
            // A notification that we do not know is nobody's business; a request deserves an answer.
            if envelope._id.is_none() && envelope.method.is_some() {
                return None;
            }
            return self.bad_line(Code::LineMalformed, ErrorCode::INVALID_REQUEST);
        };
        match &mut message {
            JsonRpcMessage::Request(request) => {
                if let (Some(why), ClientRequest::CallToolRequest(call)) = (why, &mut request.request) {
                    call.extensions.insert(Refused { why });
                }
                let id = request.id.clone();
                let tool = match &request.request {
                    ClientRequest::CallToolRequest(call) => Some(call.params.name.as_ref()),
                    _ => None,
                };
                match self.on_their_way.admit(&id, tool) {
                    Admitted::Yes => {}
                    Admitted::Twice => {
                        let error = ErrorData::invalid_request("a request of this id is on its way", None);
                        self.send_now(Own::Bad(Code::LineMalformed, error));
                        return None;
                    }
                    Admitted::TooMany => {
                        self.send_now(Own::TooMany(id, tool.is_some()));
                        return None;
                    }
                }
            }
            JsonRpcMessage::Notification(notification) => {
                // The library never answers a request that its client took back.
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.on_their_way.done(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Some(message)
    }

    fn bad_line(&mut self, code: Code, rpc: ErrorCode) -> Option<ClientJsonRpcMessage> {
        let data = serde_json::json!({ "code": code.as_str() });
        let error = ErrorData::new(rpc, format!("failed to {}", code.text()), Some(data));
        self.send_now(Own::Bad(code, error));
        None
    }

    /// Writes an answer of our own, after what it says was counted.
    fn send_now(&mut self, own: Own) {
        let (outbox, relay, uid) = (Arc::clone(&self.outbox), Arc::clone(&self.relay), self.uid);
        self.answering = Some(tokio::spawn(async move {
            let message = own.counted(&relay, uid).await;
            // A client that does not take it loses its connection, which the next read notices.
            if let Ok(line) = outbox.line(&message) {
                let _ = outbox.write(line).await;
            }
        }));
    }
}

/// An answer of our own, without the library.
enum Own {
    /// To what is no message, or none that can be answered by its id.
    Bad(Code, ErrorData),
    /// To a request of this id that is one too many; whether it calls a tool.
    TooMany(RequestId, bool),
}

impl Own {
    async fn counted(self, relay: &Relay, uid: u32) -> ServerJsonRpcMessage {
        match self {
            Self::Bad(code, error) => {
                relay.note_bad_line(uid, code).await;
                JsonRpcMessage::error(error, None)
            }
            Self::TooMany(id, is_call) => {
                // What the client calls itself is the library's to know.
                let caller = Caller {
                    uid,
                    person: relay.people.behind(uid).cloned(),
                    brain: super::brain(""),
                };
                let refusal = relay.refuse_one_too_many(&caller).await;
                if is_call {
                    let result = reply::refused(&refusal);
                    JsonRpcMessage::response(ServerResult::CallToolResult(result), id)
                } else {
                    let data = serde_json::json!({ "code": refusal.code.as_str() });
                    let error = ErrorData::internal_error("too many requests are on their way", Some(data));
                    JsonRpcMessage::error(error, Some(id))
                }
            }
        }
    }
}

/// Why the arguments of a call are not the JSON that is accepted here, if they are not.
fn check_arguments(params: Option<&RawValue>) -> Option<String> {
    let params = match serde_json::from_str::<CallParams<'_>>(params?.get()) {
        Ok(params) => params,
        Err(error) => return Some(wire::text::escaped(&error.to_string(), 200)),
    };
    let checked = wire::strict::value(params.arguments?.get().as_bytes(), wire::limits::PAYLOAD);
    checked.err().map(|error| wire::text::escaped(&error.to_string(), 200))
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Transport<RoleServer> for LineTransport<S> {
    type Error = io::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let outbox = Arc::clone(&self.outbox);
        let on_their_way = Arc::clone(&self.on_their_way);
        // The line alone is kept while it waits, not the message that it was made of.
        let line = outbox.line(&message);
        let answered = match message {
            JsonRpcMessage::Response(response) => Some(response.id),
            JsonRpcMessage::Error(error) => error.id,
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        async move {
            let written = match line {
                Ok(line) => outbox.write(line).await,
                Err(error) => Err(error),
            };
            if let Some(id) = answered {
                on_their_way.done(&id);
            }
            written
        }
    }

    // Polled inside a select and dropped at any await: what was read stands in `lines`, and between taking a piece out and
    // handing it up nothing is awaited.
    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            if let Some(answering) = &mut self.answering {
                let _ = answering.await;
                self.answering = None;
            }
            if let Some(piece) = self.lines.next_piece() {
                if let Some(message) = self.take(piece) {
                    return Some(message);
                }
                continue;
            }
            let read = tokio::select! {
                biased;
                () = self.outbox.is_cut() => return None,
                () = self.relay.gate.is_over() => Ok(0),
                read = self.read.read(&mut self.buffer) => read,
            };
            match read {
                Ok(0) | Err(_) => {
                    // The library gives up soon after the end of the input; answers may need longer.
                    tokio::select! {
                        () = self.outbox.is_cut() => {}
                        _ = tokio::time::timeout(LINGER, self.on_their_way.none_left()) => {}
                    }
                    return None;
                }
                Ok(count) => self.lines.push(self.buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.outbox.close().await
    }
}
