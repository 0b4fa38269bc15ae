//! From a login to a connection that can be asked on, and again where the network did not let us through.
//!
//! What may be tried again is a connection that nobody answered or that broke before the login: nothing of a request has
//! left by then. What somebody decided (the host's key, the login), and what comes after, is final.

use std::sync::Arc;
use std::time::Duration;

use openssh::certificate;
use tokio::time::{Instant, sleep, timeout_at};
use wire::limits::SKEW_S;

use super::places::Places;
use super::quick::Hold;
use super::{Bounds, CONNECT, Error, Far, LOGIN, Login, OPEN, dial, within};
use crate::pauses::Pauses;

/// How often a connection is tried.
const TRIES: u32 = 6;
/// The first pause, and the longest, which no connection comes to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), OPEN);

/// An open connection, and the hold that keeps it.
pub(super) struct Opened {
    pub(super) places: Arc<Places>,
    pub(super) hold: Hold,
    /// How long it was waited for the certificate to become valid.
    pub(super) waited: Duration,
}

/// Connects, verifies the host, logs in and opens the first channel, within [`OPEN`].
pub(super) async fn open(login: &Login<'_>, bounds: Bounds) -> Result<Opened, Error> {
    let waited = wait_until_valid(login).await?;
    let until = Instant::now() + OPEN;
    let mut pauses = Pauses::new(PAUSES);
    let mut tries = 1;
    loop {
        let (error, after) = match timeout_at(until, attempt(login, bounds)).await {
            Ok(Ok((places, hold))) => return Ok(Opened { places, hold, waited }),
            Ok(Err(failed)) => failed,
            Err(_) => {
                let what = format!("no session within {} s", OPEN.as_secs());
                return Err(Error::Unreachable(what));
            }
        };
        let wait = pauses.next();
        if after == After::Over || tries == TRIES || Instant::now() + wait >= until {
            return Err(error);
        }
        tracing::info!(target_name = %login.host.name, task = %login.task, %error, tries, ?wait, "connecting again");
        sleep(wait).await;
        tries += 1;
    }
}

/// What comes after a failure.
#[derive(PartialEq, Eq)]
enum After {
    /// The network failed: it may be tried again.
    Again,
    /// Somebody has decided.
    Over,
}

async fn attempt(login: &Login<'_>, bounds: Bounds) -> Result<(Arc<Places>, Hold), (Error, After)> {
    let begun = Instant::now();
    let (mut reached, mut verified) = (begun, begun);
    let logged_in = async {
        let connected = within(CONNECT, "connection", dial::connect(login.host, login.now)).await?;
        (reached, verified) = (connected.reached, Instant::now());
        within(LOGIN, "login", dial::log_in(connected, login)).await
    };
    let (connection, hold) = match logged_in.await {
        Ok(logged_in) => logged_in,
        Err(error @ Error::Unreachable(_)) => return Err((error, After::Again)),
        Err(error) => return Err((error, After::Over)),
    };
    let logged_in = Instant::now();
    let far = Far {
        name: login.host.name.clone(),
        receipt_key: login.receipt_key.clone(),
        now: login.now,
    };
    let places = Places::open(connection, far, login.certificate, bounds);
    let places = places.await.map_err(|error| (error, After::Over))?;
    tracing::info!(
        target_name = %login.host.name,
        task = %login.task,
        tcp_us = (reached - begun).as_micros(),
        verified_us = (verified - reached).as_micros(),
        login_us = (logged_in - verified).as_micros(),
        channel_us = logged_in.elapsed().as_micros(),
        "connected"
    );
    Ok((places, hold))
}

/// A certificate that is not valid yet, by the target's clock as far as it is known, is waited for once, where that is
/// soon. sshd would refuse it, and not say why.
async fn wait_until_valid(login: &Login<'_>) -> Result<Duration, Error> {
    let valid_after = certificate::read(login.certificate)
        .map_err(|error| Error::Protocol(format!("the CA's certificate: {error}")))?
        .valid_after();
    let now = (login.now)().saturating_add_signed(login.ahead_s.unwrap_or(0));
    let wait = valid_after.saturating_sub(now);
    if wait > SKEW_S {
        return Err(Error::NotYetValid(wait));
    }
    if wait > 0 {
        tracing::warn!(target_name = %login.host.name, wait_s = wait, "clocks differ: the certificate is not valid yet");
        sleep(Duration::from_secs(wait)).await;
    }
    Ok(Duration::from_secs(wait))
}
