//! The door: gRPC, over a unix socket and over TLS. Who is at the other end is known before a message is read: by the kernel,
//! or by a key.
//!
//! The only file that knows tonic. It decides nothing: it knocks at the authority and carries the answer back.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use grpc::policies;
use grpc::v1;
use grpc::v1::ca_server::{Ca, CaServer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, StdError, http};
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::{Connected, UdsConnectInfo};
use tonic::{Request, Response, Status};
use wire::code::Fault;
use wire::{Code, limits};

use crate::authority::{Authority, Peer};
use crate::call::{Refused, Sketch};
use crate::convert;
use crate::error::Error;
use crate::port::{Guest, Port};
use crate::roster::Caller;

/// Longest message that is read, in bytes: room for a whole payload and a key beside it.
const MESSAGE_BYTES: usize = limits::PAYLOAD + 4 * 1024;

/// Most calls at a time on one connection.
const CALLS: usize = 64;

/// How long calls that are being answered may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(15);

/// How often a connection over the network has to show that it is still there, and how long it may take: a relay that is
/// gone without a word keeps no place.
const ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

struct Door {
    authority: Arc<Authority>,
}

/// Serves until `stop` is done, then finishes what is being answered.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    authority: Arc<Authority>,
    listener: UnixListener,
    port: Option<Port>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let guard = Arc::clone(&authority);
    let door = CaServer::new(Door {
        authority: Arc::clone(&authority),
    })
    .max_decoding_message_size(MESSAGE_BYTES);
    // Around the service and not inside its calls: a call that is added later is behind it too.
    let door = InterceptedService::new(door, move |request| recognise(&guard, request));
    let door = Recorded {
        inner: door,
        authority: Arc::clone(&authority),
    };
    let minutes = tokio::spawn(count_strangers(authority));
    let (asked, told) = watch::channel(());
    let asked_to_end = |mut told: watch::Receiver<()>| async move {
        // Also when the sender is gone: then serving has ended already.
        let _ = told.changed().await;
    };
    // Two servers: what happens at the port holds up nobody at the socket.
    let at_socket = Server::builder()
        .concurrency_limit_per_connection(CALLS)
        .add_service(door.clone())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), asked_to_end(told.clone()));
    let at_port = async {
        let Some(port) = port else { return Ok(()) };
        Server::builder()
            .concurrency_limit_per_connection(CALLS)
            .http2_keepalive_interval(Some(ALIVE.0))
            .http2_keepalive_timeout(Some(ALIVE.1))
            .add_service(door)
            .serve_with_incoming_shutdown(ReceiverStream::new(port.guests()), asked_to_end(told))
            .await
    };
    let drained = async move {
        stop.await;
        let _ = asked.send(());
        tokio::time::sleep(DRAIN).await;
    };
    let served = tokio::select! {
        served = async { tokio::try_join!(at_socket, at_port) } => served.map(drop).map_err(io::Error::other),
        () = drained => Ok(()),
    };
    minutes.abort();
    served
}

impl Connected for Guest {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller::Key(self.key().clone())
    }
}

async fn count_strangers(authority: Arc<Authority>) {
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    loop {
        minute.tick().await;
        let authority = Arc::clone(&authority);
        let _ = spawn_blocking(move || authority.count_strangers()).await;
    }
}

/// Puts the relay's proof beside the request, or refuses it.
fn recognise(authority: &Authority, mut request: Request<()>) -> Result<Request<()>, Status> {
    let caller = uid_of(request.extensions().get()).or_else(|| request.extensions().get().cloned());
    let peer = authority.recognise(caller).map_err(|refused| status(&refused))?;
    request.extensions_mut().insert(peer);
    Ok(request)
}

fn caller(extensions: &http::Extensions) -> Option<Caller> {
    uid_of(extensions.get()).or_else(|| extensions.get().cloned())
}

/// SO_PEERCRED: who made the connection, as the kernel remembers it.
fn uid_of(info: Option<&UdsConnectInfo>) -> Option<Caller> {
    info?.peer_cred.map(|cred| Caller::Uid(cred.uid()))
}

#[tonic::async_trait]
impl Ca for Door {
    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeReply>, Status> {
        let (peer, _) = self.enter(request)?;
        let description = self.ask(move |authority| authority.describe(&peer)).await?;
        Ok(Response::new(convert::description(description)))
    }

    async fn open_task(&self, request: Request<v1::OpenTaskRequest>) -> Result<Response<v1::TaskCertificate>, Status> {
        let (peer, call) = self.enter(request)?;
        let credential = self
            .ask(move |authority| match convert::open_task(&call) {
                Ok(call) => authority.open_task(&peer, &call),
                Err(error) => Err(authority.refuse(&peer, convert::sketch_of_open(&call), error)),
            })
            .await?;
        Ok(Response::new(convert::credential(credential)))
    }

    async fn renew_task(
        &self,
        request: Request<v1::RenewTaskRequest>,
    ) -> Result<Response<v1::TaskCertificate>, Status> {
        let (peer, call) = self.enter(request)?;
        let credential = self
            .ask(move |authority| match convert::renew_task(&call) {
                Ok(call) => authority.renew_task(&peer, &call),
                Err(error) => Err(authority.refuse(&peer, convert::sketch_of_renew(&call), error)),
            })
            .await?;
        Ok(Response::new(convert::credential(credential)))
    }

    async fn authorize_action(
        &self,
        request: Request<v1::AuthorizeActionRequest>,
    ) -> Result<Response<v1::ActionCertificate>, Status> {
        let (peer, call) = self.enter(request)?;
        let authorized = self
            .ask(move |authority| match convert::authorize_action(&call) {
                Ok(call) => authority.authorize_action(&peer, &call),
                Err(error) => Err(authority.refuse(&peer, convert::sketch_of_authorize(&call), error)),
            })
            .await?;
        Ok(Response::new(convert::authorized(authorized)))
    }
}

impl Door {
    /// The peer that [`recognise`] put there. Without one there is no call.
    fn enter<T>(&self, mut request: Request<T>) -> Result<(Peer, T), Status> {
        match request.extensions_mut().remove::<Peer>() {
            Some(peer) => Ok((peer, request.into_inner())),
            None => Err(status(&Refused::of(&Error::Stranger(None)))),
        }
    }

    /// Asks on a thread that may wait for the disk. A caller that goes away does not undo what was begun.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Authority) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Status> {
        let authority = Arc::clone(&self.authority);
        match spawn_blocking(move || question(&authority)).await {
            Ok(answer) => answer.map_err(|refused| status(&refused)),
            Err(_) => Err(status(&Refused::of(&Error::Lost))),
        }
    }
}

/// Around everything: what the library refuses before a call is one (too long, no such call) gets a Code and a record
/// like any other refusal.
#[derive(Clone)]
struct Recorded<S> {
    inner: S,
    authority: Arc<Authority>,
}

impl<S: NamedService> NamedService for Recorded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<http::Request<B>> for Recorded<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    R: HttpBody<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let caller = caller(request.extensions());
        let authority = Arc::clone(&self.authority);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let Some(error) = unnamed_refusal(&response) else {
                return Ok(response.map(Body::new));
            };
            let refused = spawn_blocking(move || match authority.recognise(caller) {
                Ok(peer) => authority.refuse(&peer, Sketch::default(), error),
                Err(refused) => refused,
            });
            let refused = refused.await.unwrap_or_else(|_| Refused::of(&Error::Lost));
            Ok(status(&refused).into_http())
        })
    }
}

/// The error that an answer without a Code stands for.
fn unnamed_refusal<B>(response: &http::Response<B>) -> Option<Error> {
    let headers = response.headers();
    // Success says its status after the body, a refusal instead of one.
    let refusal = Status::from_header_map(headers).filter(|status| status.code() != tonic::Code::Ok)?;
    if headers.contains_key(grpc::CODE) {
        return None;
    }
    Some(match refusal.code() {
        tonic::Code::OutOfRange => Error::TooLong { max: MESSAGE_BYTES },
        _ => Error::NoCall(refusal.message().to_owned()),
    })
}

/// A refusal as gRPC says it: the nearest of its codes, and ours beside it, with the policies that decided. The text may repeat what was sent: it is cut,
/// because a header has less room than a message.
fn status(refused: &Refused) -> Status {
    let message = wire::text::escaped(&refused.message, limits::MESSAGE);
    let mut status = Status::new(grpc_code(refused.code), message.clone());
    let policies = policies::written(&refused.policies);
    let entries = [
        (grpc::CODE, Some(refused.code.as_str())),
        (grpc::MESSAGE, Some(message.as_str())),
        (grpc::POLICY, policies.as_deref()),
    ];
    for (key, text) in entries {
        let Some(text) = text else { continue };
        // Printable ASCII is always a value.
        if let Ok(value) = MetadataValue::try_from(text) {
            status.metadata_mut().insert(key, value);
        }
    }
    status
}

fn grpc_code(code: Code) -> tonic::Code {
    match code.fault() {
        _ if code.retryable() => tonic::Code::Unavailable,
        Fault::Caller => tonic::Code::InvalidArgument,
        Fault::Policy | Fault::Peer => tonic::Code::PermissionDenied,
        Fault::Machine | Fault::Program => tonic::Code::Internal,
    }
}
