//! `inspect tcp`: whether something accepts connections.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::End;
use crate::error::{Error, Result};
use crate::text::Part::Quoted;
use crate::text::words;

/// How long one connection attempt may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// Opens a connection, closes it, and says so.
pub(crate) fn probe<'a>(address: &'a str, port: &'a str, now: fn() -> Duration) -> End<'a> {
    let Some(address_ip) = ip(address) else {
        return End::Usage(words![
            "ADDRESS must be an IP address or localhost, not ",
            Quoted(address)
        ]);
    };
    let Some(port_number) = port_number(port) else {
        return End::Usage(words!["PORT must be 1 to 65535, not ", Quoted(port)]);
    };
    let port = u64::from(port_number);
    match open(SocketAddr::new(address_ip, port_number), now) {
        Ok(_) => End::Healthy(words!["tcp ", address, " ", port, ": accepts connections"]),
        Err(error) => End::Unhealthy(words!["tcp ", address, " ", port, ": ", error]),
    }
}

/// Opens a connection that does not block.
///
/// # Errors
/// The system's, or that it took too long.
pub(crate) fn open(address: SocketAddr, now: fn() -> Duration) -> Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&stream, &address) {
        Ok(()) => return Ok(stream),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    if !wait(stream.as_fd(), PollFlags::OUT, now() + CONNECT, now)? {
        return Err(Error::Told("connection timed out"));
    }
    sockopt::socket_error(&stream)??;
    Ok(stream)
}

/// Waits until a socket is ready, or has failed; false if that was not before the deadline.
///
/// # Errors
/// The system's.
pub(crate) fn wait(
    socket: BorrowedFd<'_>,
    ready: PollFlags,
    deadline: Duration,
    now: fn() -> Duration,
) -> Result<bool> {
    loop {
        let left = deadline.saturating_sub(now());
        // Also what is ready is too late then: else a peer that drips would be listened to without end.
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::from_borrowed_fd(socket, ready)], Some(&timeout)) {
            Ok(number) => return Ok(number > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// An IP literal, or the one name that needs no lookup.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        literal => literal.parse().ok(),
    }
}

/// 1 to 65535 in plain decimals.
pub(crate) fn port_number(text: &str) -> Option<u16> {
    crate::number(text)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What the program has for a clock, for tests.
    pub(crate) fn now() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::try_from(now).unwrap()
    }

    #[test]
    fn a_listener_is_healthy_and_a_closed_port_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        assert!(matches!(probe("localhost", &port, now), End::Healthy(_)));
        drop(listener);
        assert!(matches!(probe("127.0.0.1", &port, now), End::Unhealthy(line) if line.contains("refused")));
    }

    #[test]
    fn what_is_ready_after_the_deadline_is_too_late() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut theirs, b"x").unwrap();
        let wait_until = |deadline| wait(ours.as_fd(), PollFlags::IN, deadline, || Duration::from_secs(9));
        assert_eq!(wait_until(Duration::from_secs(10)), Ok(true));
        assert_eq!(wait_until(Duration::from_secs(9)), Ok(false));
    }

    #[test]
    fn an_address_that_does_not_answer_is_given_up() {
        // Full: a backlog of one connection, which nobody accepts.
        let listener = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        let _first = open(address, now).unwrap();
        assert_eq!(open(address, now).unwrap_err(), Error::Told("connection timed out"));
    }
}
