//! `inspect tcp`: whether something accepts connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::End;

/// How long one connection attempt may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// Opens a connection, closes it, and says so.
pub(crate) fn probe(address: &str, port: &str) -> End {
    let Some(address_ip) = ip(address) else {
        return End::Usage(format!("ADDRESS must be an IP address or localhost, not {address:?}"));
    };
    let Some(port) = port_number(port) else {
        return End::Usage(format!("PORT must be 1 to 65535, not {port:?}"));
    };
    match TcpStream::connect_timeout(&SocketAddr::new(address_ip, port), CONNECT) {
        Ok(_) => End::Healthy(format!("tcp {address} {port}: accepts connections")),
        Err(error) => End::Unhealthy(format!("tcp {address} {port}: {error}")),
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
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_healthy_and_a_closed_port_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        assert!(matches!(probe("localhost", &port), End::Healthy(_)));
        drop(listener);
        assert!(matches!(probe("127.0.0.1", &port), End::Unhealthy(line) if line.contains("refused")));
    }
}
