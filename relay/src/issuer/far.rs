//! The CA on another machine: TLS, by keys that are read again when they change.
//!
//! One connection carries all calls. When the relay's own key or those of the CA are replaced, the next call is made on a
//! new one, and calls under way end on theirs. A file that cannot be read stops calls: what it said before no longer counts.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grpc::keys::{Own, Peer};
use grpc::tls;
use grpc::v1::ca_client::CaClient;
use hyper_util::rt::TokioIo;
use openssh::key::PublicKey;
use tokio::net::TcpStream;
use tonic::codegen::StdError;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

use super::{Error, client, endpoint};

/// How often an idle connection is tried, and how long that may take: a CA that is gone without a word is noticed.
const ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

/// The way there.
pub(super) struct Far {
    address: String,
    own: Own,
    ca: Peer,
    line: Mutex<Option<Line>>,
}

/// A client, and the keys that its connections are made with.
struct Line {
    own: PublicKey,
    ca: Arc<Vec<PublicKey>>,
    client: CaClient<Channel>,
}

impl Far {
    pub(super) fn new(address: &str, own: &Path, ca: &Path) -> Self {
        Self {
            address: address.to_owned(),
            own: Own::at(own),
            ca: Peer::at(ca),
            line: Mutex::default(),
        }
    }

    /// The client of now. Nothing is sent yet.
    pub(super) fn client(&self) -> Result<CaClient<Channel>, Error> {
        let unusable = |why: &dyn std::fmt::Display| Error::Unavailable(why.to_string());
        // Looked at in turn: what an earlier call has read never takes the place of what a later one has.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.own.current().map_err(|fault| unusable(&fault))?;
        let ca = self.ca.current().map_err(|fault| unusable(&fault))?;
        if let Some(line) = &*line
            && line.own == *own.public()
            && line.ca == ca
        {
            return Ok(line.client.clone());
        }
        let known = Arc::clone(&ca);
        let tls = tls::Client::new(&own, move |key| known.contains(key)).map_err(|error| unusable(&error))?;
        let made = Line {
            own: own.public().clone(),
            ca,
            client: connect(self.address.clone(), tls),
        };
        Ok(line.insert(made).client.clone())
    }
}

fn connect(address: String, tls: tls::Client) -> CaClient<Channel> {
    let connector = service_fn(move |_: Uri| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            // Calls and answers are small, and one waits for the other.
            stream.set_nodelay(true)?;
            Ok::<_, StdError>(TokioIo::new(tls.connect(stream).await?))
        }
    });
    let endpoint = endpoint()
        .http2_keep_alive_interval(ALIVE.0)
        .keep_alive_timeout(ALIVE.1)
        .keep_alive_while_idle(true);
    client(endpoint.connect_with_connector_lazy(connector))
}
