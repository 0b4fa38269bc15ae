//! The port that relays on other machines connect to: TLS, and a key that the configuration knows, before a call is read.
//!
//! Whoever is not known gets no further than the handshake, and is counted. Handshakes are bounded in number and time:
//! where there are too many, the oldest gives way, so that whoever opens connections and says nothing keeps nobody out.
//! The unix socket is served beside it and shares nothing with it but the calls.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use grpc::keys::{Fault, Own};
use grpc::tls::{Served, Server, SetupError};
use openssh::key::PublicKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};
use tracing::{error, warn};

use crate::authority::Authority;
use crate::error::Error;
use crate::roster::Caller;
use crate::signer::TLS;

/// Most handshakes that are under way. An honest one takes as long as the way there and back, twice.
const HANDSHAKES: usize = 128;

/// Most connections of one key. A relay needs one, and another while it changes its key.
const CONNECTIONS: usize = 16;

/// Most that are counted later: beyond, handshakes wait until they were.
const COUNTED_LATER: usize = 64;

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The key cannot be read.
    #[error(transparent)]
    Key(#[from] Fault),
    /// The key cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Nothing can listen there.
    #[error("listen at {0} (tls_listen)")]
    Listen(SocketAddr, #[source] io::Error),
}

/// A port that listens.
pub struct Port {
    listener: TcpListener,
    lock: Lock,
}

/// The CA's side of TLS, with the key that is on disk now.
struct Lock {
    own: Own,
    public: PublicKey,
    server: Server,
    authority: Arc<Authority>,
    told: Option<String>,
}

impl Port {
    /// Listens.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn open(address: SocketAddr, key_dir: &Path, authority: &Arc<Authority>) -> Result<Self, PortError> {
        let lock = Lock::new(key_dir, Arc::clone(authority))?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|cause| PortError::Listen(address, cause))?;
        Ok(Self { listener, lock })
    }

    /// Those who are let in, for as long as somebody takes them.
    pub(crate) fn guests(self) -> mpsc::Receiver<io::Result<Guest>> {
        let (inside, guests) = mpsc::channel(HANDSHAKES);
        tokio::spawn(self.admit(inside));
        guests
    }

    async fn admit(mut self, inside: mpsc::Sender<io::Result<Guest>>) {
        let (turned, counted) = mpsc::channel(COUNTED_LATER);
        tokio::spawn(count(Arc::clone(&self.lock.authority), counted));
        let seats = Arc::new(Seats::default());
        let mut under_way: VecDeque<(AbortHandle, IpAddr)> = VecDeque::new();
        loop {
            let came = tokio::select! {
                came = self.listener.accept() => came,
                () = inside.closed() => return,
            };
            let (stream, from) = match came {
                Ok((stream, from)) => (stream, from.ip()),
                Err(cause) => {
                    // Out of descriptors, most likely: give what is open a moment to end.
                    warn!(%cause, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            under_way.retain(|(handshake, _)| !handshake.is_finished());
            if under_way.len() >= HANDSHAKES
                && let Some((oldest, from)) = under_way.pop_front()
            {
                oldest.abort();
                let _ = turned.send(Error::GaveWay(from)).await;
            }
            let (inside, turned, seats) = (inside.clone(), turned.clone(), Arc::clone(&seats));
            let server = self.lock.server();
            let handshake = tokio::spawn(async move {
                match meet(&server, stream, from, &seats).await {
                    Ok(guest) => drop(inside.send(Ok(guest)).await),
                    Err(error) => drop(turned.send(error).await),
                }
            });
            under_way.push_back((handshake.abort_handle(), from));
        }
    }
}

async fn meet(server: &Server, stream: TcpStream, from: IpAddr, seats: &Arc<Seats>) -> Result<Guest, Error> {
    // Calls and answers are small, and one waits for the other.
    let _ = stream.set_nodelay(true);
    let (stream, key) = server.accept(stream).await.map_err(|why| Error::Handshake(from, why))?;
    match seats.take(&key) {
        Some(seat) => Ok(Guest {
            stream,
            key,
            _seat: seat,
        }),
        None => Err(Error::Connections(Caller::Key(key), CONNECTIONS)),
    }
}

/// Counts those who were turned away, one after the other: they take one thread of those that calls wait on, never more.
async fn count(authority: Arc<Authority>, mut turned: mpsc::Receiver<Error>) {
    while let Some(error) = turned.recv().await {
        let authority = Arc::clone(&authority);
        let _ = spawn_blocking(move || authority.turn_away(&error)).await;
    }
}

impl Lock {
    fn new(key_dir: &Path, authority: Arc<Authority>) -> Result<Self, PortError> {
        let own = Own::at(&key_dir.join(TLS));
        let key = own.current()?;
        Ok(Self {
            public: key.public().clone(),
            server: server(&key, &authority)?,
            own,
            authority,
            told: None,
        })
    }

    /// With the key of now. Where it cannot be read the last one stays: a key that is being replaced is not a hole.
    fn server(&mut self) -> Server {
        let failed = match self.own.current() {
            Ok(key) if *key.public() == self.public => None,
            Ok(key) => match server(&key, &self.authority) {
                Ok(server) => {
                    (self.server, self.public) = (server, key.public().clone());
                    tracing::info!(key = self.public.fingerprint(), "another key for TLS");
                    None
                }
                Err(cause) => Some(cause.to_string()),
            },
            Err(fault) => Some(fault.to_string()),
        };
        if let Some(why) = failed.as_ref().filter(|why| self.told.as_ref() != Some(*why)) {
            error!(why, "the key for TLS cannot be read: the one before stays");
        }
        self.told = failed;
        self.server.clone()
    }
}

fn server(key: &openssh::key::SigningKey, authority: &Arc<Authority>) -> Result<Server, SetupError> {
    let authority = Arc::clone(authority);
    Server::new(key, move |key| authority.knows(&Caller::Key(key.clone())))
}

/// How many connections each key has.
#[derive(Default)]
struct Seats(Mutex<HashMap<[u8; 32], usize>>);

/// One of them; given back when it goes.
struct Seat {
    key: [u8; 32],
    of: Arc<Seats>,
}

impl Seats {
    fn take(self: &Arc<Self>, key: &PublicKey) -> Option<Seat> {
        let key = *key.as_bytes();
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(key).or_default();
        if *taken >= CONNECTIONS {
            return None;
        }
        *taken += 1;
        Some(Seat {
            key,
            of: Arc::clone(self),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.key);
            }
        }
    }
}

/// A connection whose other end has proved its key.
pub(crate) struct Guest {
    stream: Served,
    key: PublicKey,
    _seat: Seat,
}

impl Guest {
    /// The key.
    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
