//! `inspect http`: whether a web server answers GET with 2xx or 3xx. Plain HTTP, the status line only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::{End, tcp, text};

/// How long the answer may take, connection included.
const WHOLE: Duration = Duration::from_secs(5);

/// Longest status line that is read, in bytes.
const STATUS_LINE: usize = 1024;

/// Asks and tells the status line.
pub(crate) fn probe(url: &str) -> End {
    let Some(target) = Target::parse(url) else {
        return End::Usage(format!(
            "URL must be http://HOST[:PORT][/PATH] with an IP address or localhost, not {url:?}"
        ));
    };
    match ask(&target) {
        Ok(line) => verdict(url, &line),
        Err(error) => End::Unhealthy(format!("http {url}: {error}")),
    }
}

fn verdict(url: &str, line: &[u8]) -> End {
    let told = format!("http {url}: {}", text::printable(line));
    match status(line) {
        Some(200..=399) => End::Healthy(told),
        Some(_) => End::Unhealthy(told),
        None => End::Unhealthy(format!("{told} (not an HTTP answer)")),
    }
}

/// Where to connect and what to ask for.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    address: SocketAddr,
    host: String,
    path: String,
}

impl Target {
    /// The strict reading: no user, no fragment, nothing that could end the request line early.
    fn parse(url: &str) -> Option<Target> {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return None;
        }
        let (name, port) = match host.strip_prefix('[') {
            Some(v6) => {
                let (name, after) = v6.split_once(']')?;
                // Only a v6 address stands in brackets.
                name.parse::<std::net::Ipv6Addr>().ok()?;
                (
                    name,
                    if after.is_empty() {
                        None
                    } else {
                        Some(after.strip_prefix(':')?)
                    },
                )
            }
            None => match host.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host, None),
            },
        };
        let port = match port {
            Some(port) => tcp::port_number(port)?,
            None => 80,
        };
        Some(Target {
            address: SocketAddr::new(tcp::ip(name)?, port),
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Sends the request and reads up to the first line's end. A server that drips is given up when the whole time is over.
fn ask(target: &Target) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + WHOLE;
    let mut stream = TcpStream::connect_timeout(&target.address, tcp::CONNECT)?;
    stream.set_write_timeout(Some(tcp::CONNECT))?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: writ-inspect\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        target.path, target.host
    );
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    let mut block = [0_u8; STATUS_LINE];
    while line.len() < STATUS_LINE {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"));
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut block) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // What a read timeout is called differs between systems.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"));
            }
            Err(error) => return Err(error),
        };
        let new = block.get(..read).unwrap_or_default();
        if let Some(end) = new.iter().position(|b| *b == b'\n') {
            line.extend_from_slice(new.get(..end).unwrap_or_default());
            break;
        }
        line.extend_from_slice(new);
        if read == 0 {
            break;
        }
    }
    line.truncate(STATUS_LINE);
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// The three digits of `HTTP/1.x NNN …`.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.get(..12)?).ok()?;
    let digits = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    crate::number(digits).and_then(|n| u16::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server for one connection that says `answer` whatever it is asked; gives back its URL.
    fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0_u8; 4096];
            let _size = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        format!("http://127.0.0.1:{port}/health?deep=1")
    }

    #[test]
    fn two_and_three_hundreds_are_healthy_and_nothing_else_is() {
        let table: [(&[u8], bool, &str); 7] = [
            (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nbody", true, "200 OK"),
            (b"HTTP/1.0 302 Found\n", true, "302 Found"),
            (b"HTTP/1.1 404 Not Found\r\n", false, "404"),
            (b"HTTP/1.1 503 \x1b[31mred\r\n", false, r"\x1b[31mred"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", false, "not an HTTP answer"),
            (b"", false, "not an HTTP answer"),
            (&[b'x'; 5000], false, "not an HTTP answer"),
        ];
        for (answer, healthy, part) in table {
            let end = probe(&server(answer));
            let (End::Healthy(line) | End::Unhealthy(line)) = &end else {
                panic!("{end:?}")
            };
            assert_eq!(matches!(end, End::Healthy(_)), healthy, "{line}");
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn only_plain_urls_of_addresses_are_read() {
        for good in [
            "http://127.0.0.1",
            "http://127.0.0.1:8080/x?y=1",
            "http://[::1]/",
            "http://[::1]:81",
            "http://localhost:1/",
        ] {
            assert!(Target::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "http://",
            "https://127.0.0.1/",
            "HTTP://127.0.0.1/",
            "http://example.org/",
            "http://user@127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:+80/",
            "http://127.0.0.1:/",
            "http://[127.0.0.1]/",
            "http://[::1]x/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/a\r\nX: y",
            "http://127.0.0.1/#x",
            "http://127.0.0.1?x",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
