//! `inspect http`: whether a web server answers GET with 2xx or 3xx. Plain HTTP, the status line only.

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::error::{Error, Result};
use crate::text::Part::{Foreign, Quoted};
use crate::text::{Gathered, Out, words};
use crate::{End, tcp};

/// How long the answer may take, connection included.
const WHOLE: Duration = Duration::from_secs(5);

/// Longest status line that is read, in bytes.
pub(crate) const STATUS_LINE: usize = 1024;

/// Memory for a request, which is sent in pieces where it is longer.
const REQUEST: usize = 512;

/// Asks and tells the status line.
pub(crate) fn probe<'a>(url: &'a str, now: fn() -> Duration, answer: &'a mut [u8; STATUS_LINE]) -> End<'a> {
    let Some(target) = Target::parse(url) else {
        return End::Usage(words![
            "URL must be http://HOST[:PORT][/PATH] with an IP address or localhost, not ",
            Quoted(url)
        ]);
    };
    match ask(&target, now, answer) {
        Ok(line) => verdict(url, line),
        Err(error) => End::Unhealthy(words!["http ", url, ": ", error]),
    }
}

fn verdict<'a>(url: &'a str, line: &'a [u8]) -> End<'a> {
    match status(line) {
        Some(200..=399) => End::Healthy(words!["http ", url, ": ", Foreign(line)]),
        Some(_) => End::Unhealthy(words!["http ", url, ": ", Foreign(line)]),
        None => End::Unhealthy(words!["http ", url, ": ", Foreign(line), " (not an HTTP answer)"]),
    }
}

/// Where to connect and what to ask for.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    address: SocketAddr,
    host: &'a str,
    path: &'a str,
}

impl<'a> Target<'a> {
    /// The strict reading: no user, no fragment, nothing that could end the request line early.
    fn parse(url: &'a str) -> Option<Self> {
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
                name.parse::<Ipv6Addr>().ok()?;
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
            host,
            path,
        })
    }
}

/// Sends the request and reads up to the first line's end. A server that drips is given up when the whole time is over.
fn ask<'a>(target: &Target<'_>, now: fn() -> Duration, answer: &'a mut [u8; STATUS_LINE]) -> Result<&'a [u8]> {
    let deadline = now() + WHOLE;
    let stream = tcp::open(target.address, now)?;
    let peer = Peer {
        stream: stream.as_fd(),
        now,
    };
    let mut request = [0; REQUEST];
    let mut request = Gathered::new(&mut request, peer);
    for text in [
        "GET ",
        target.path,
        " HTTP/1.1\r\nHost: ",
        target.host,
        "\r\nUser-Agent: writ-inspect\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    ] {
        request.put(text.as_bytes())?;
    }
    request.flush()?;
    let mut len = 0;
    while let Some(rest) = answer.get_mut(len..)
        && !rest.is_empty()
    {
        if !tcp::wait(stream.as_fd(), PollFlags::IN, deadline, now)? {
            return Err(Error::Told("no answer in time"));
        }
        let read = match recv(&stream, &mut *rest, RecvFlags::empty()) {
            Ok((read, _)) => read,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if let Some(end) = rest.iter().take(read).position(|b| *b == b'\n') {
            len += end;
            break;
        }
        len += read;
        if read == 0 {
            break;
        }
    }
    let line = answer.get(..len).unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line))
}

/// A connection that is written to. A peer that is gone is an error and no signal.
struct Peer<'a> {
    stream: BorrowedFd<'a>,
    now: fn() -> Duration,
}

impl Out for Peer<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| send(self.stream, bytes, SendFlags::NOSIGNAL)) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::AGAIN) => {
                    if !tcp::wait(self.stream, PollFlags::OUT, (self.now)() + tcp::CONNECT, self.now)? {
                        return Err(Errno::AGAIN.into());
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// The three digits of `HTTP/1.x NNN …`.
fn status(line: &[u8]) -> Option<u16> {
    let line = core::str::from_utf8(line.get(..12)?).ok()?;
    let digits = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    crate::number(digits).and_then(|n| u16::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::tests::now;
    use std::io::{Read, Write};
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
            let url = server(answer);
            let mut memory = [0; STATUS_LINE];
            let end = probe(&url, now, &mut memory);
            let (End::Healthy(line) | End::Unhealthy(line)) = &end else {
                panic!("{end:?}")
            };
            let line = line.told();
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
