//! `writ-relay approvals`: asks at the approvers' door and shows what it says.
//!
//! The text to sign goes to stdout and to a file, byte for byte; everything else goes to stderr. It is shown only if it is
//! printable ASCII, as every Statement is, so that a terminal shows what is signed and obeys nothing of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use audit::ApprovalState;
use openssh::sshsig;
use wire::ids::ApprovalId;
use wire::{strict, text};

use super::{ANSWER, Answer, Item, No, Question, Verb};

/// How long the relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest file of a signature, in bytes.
const SIGNATURE_FILE: u64 = 16 * 1024;
/// The armour of a signature (OpenSSH's PROTOCOL.sshsig).
const ARMOUR: [&str; 2] = ["-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"];
/// Longest reason and list of targets in a list, in bytes.
const CELL: usize = 60;
/// What a file of the text is called where nobody names one.
const FILE: &str = "statement.txt";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or this account may not connect.
    #[error(
        "connect to {path}: is `writ-relay serve` running, and may this account use it (root, the relay's, or the folder's group)?"
    )]
    Connect {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It broke off, or took too long.
    #[error("hear the relay's answer")]
    Answer(#[source] io::Error),
    /// The answer is no answer.
    #[error("understand the relay's answer: {0}")]
    Protocol(String),
    /// The relay says no.
    #[error("{} ({})", .0.message.strip_prefix("failed to ").unwrap_or(&.0.message), .0.code)]
    Refused(No),
    /// A file of this side.
    #[error("use {path}")]
    File {
        /// Which.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file holds no signature.
    #[error("find an SSH signature in {0}: `ssh-keygen -Y sign` writes one")]
    NoSignature(String),
}

/// Lists what is open.
///
/// # Errors
/// Any [`Error`].
pub fn list(socket: &Path) -> Result<(), Error> {
    let question = Question {
        verb: Verb::List,
        id: None,
        signature: None,
    };
    let Answer {
        approvals: Some(approvals),
        ..
    } = ask(socket, &question)?
    else {
        return Err(Error::Protocol("it has no list".to_owned()));
    };
    for item in &approvals {
        println!("{}", row(item));
    }
    if approvals.is_empty() {
        eprintln!("nothing waits for approval");
    }
    Ok(())
}

/// Shows one: its text, and how it is signed. `out` gets the exact bytes of the text, and is not there before.
///
/// # Errors
/// Any [`Error`].
pub fn show(socket: &Path, id: ApprovalId, out: Option<&Path>) -> Result<(), Error> {
    let item = about(socket, Verb::Show, id, None)?;
    eprintln!("{}", state(&item));
    let Some(statement) = &item.statement else {
        return Ok(());
    };
    if !statement
        .bytes()
        .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
    {
        return Err(Error::Protocol("its text is no Statement: do not sign it".to_owned()));
    }
    if let Some(path) = out {
        let failed = |source| Error::File {
            path: path.display().to_string(),
            source,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed)?;
        file.write_all(statement.as_bytes()).map_err(failed)?;
    }
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(statement.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::File {
        path: "stdout".to_owned(),
        source,
    })?;
    let file = out.map_or_else(|| FILE.to_owned(), |path| path.display().to_string());
    let file = quoted(&file);
    eprintln!("\nWhat it says is what will be done. To approve it, sign exactly these bytes, with a key of yours:");
    if out.is_none() {
        eprintln!("  writ-relay approvals show {} > {file}", item.id);
    }
    eprintln!("  {}", signing(&file));
    eprintln!("  writ-relay approvals approve {} --signature {file}.sig", item.id);
    eprintln!("To deny it:\n  writ-relay approvals deny {}", item.id);
    Ok(())
}

/// The one line by which a file is signed.
#[must_use]
pub fn signing(file: &str) -> String {
    format!("ssh-keygen -Y sign -n {} -f KEY {file}", sshsig::APPROVE)
}

/// Brings a signature: of a file, or of stdin where it is `-`.
///
/// # Errors
/// Any [`Error`].
pub fn approve(socket: &Path, id: ApprovalId, signature: &Path) -> Result<(), Error> {
    let name = signature.display().to_string();
    let failed = |source| Error::File {
        path: name.clone(),
        source,
    };
    let mut armoured = String::new();
    if signature == Path::new("-") {
        io::stdin().lock().take(SIGNATURE_FILE).read_to_string(&mut armoured)
    } else {
        File::open(signature).and_then(|file| file.take(SIGNATURE_FILE).read_to_string(&mut armoured))
    }
    .map_err(failed)?;
    let signature = unarmoured(&armoured).ok_or(Error::NoSignature(name))?;
    let item = about(socket, Verb::Approve, id, Some(signature))?;
    println!("{}", state(&item));
    Ok(())
}

/// Says no.
///
/// # Errors
/// Any [`Error`].
pub fn deny(socket: &Path, id: ApprovalId) -> Result<(), Error> {
    let item = about(socket, Verb::Deny, id, None)?;
    println!("{}", state(&item));
    Ok(())
}

fn about(socket: &Path, verb: Verb, id: ApprovalId, signature: Option<String>) -> Result<Item, Error> {
    let question = Question {
        verb,
        id: Some(id),
        signature,
    };
    let answer = ask(socket, &question)?;
    answer
        .approval
        .ok_or_else(|| Error::Protocol("it is about nothing".to_owned()))
}

fn ask(socket: &Path, question: &Question) -> Result<Answer, Error> {
    let mut stream = UnixStream::connect(socket).map_err(|source| Error::Connect {
        path: socket.display().to_string(),
        source,
    })?;
    let mut line = serde_json::to_string(question).map_err(|error| Error::Protocol(error.to_string()))?;
    line.push('\n');
    let mut said = Vec::new();
    let most = u64::try_from(ANSWER).unwrap_or(u64::MAX);
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(line.as_bytes()))
        .and_then(|()| stream.take(most).read_to_end(&mut said))
        .map_err(Error::Answer)?;
    let line = said.strip_suffix(b"\n").unwrap_or(&said);
    let answer: Answer = strict::read(line, ANSWER).map_err(|error| Error::Protocol(error.to_string()))?;
    match answer.refused {
        Some(no) => Err(Error::Refused(No {
            message: text::escaped(&no.message, 500),
            ..no
        })),
        None => Ok(answer),
    }
}

/// The base64 of a signature, with its armour or without, on one line.
fn unarmoured(text: &str) -> Option<String> {
    let [begin, end] = ARMOUR;
    let inside = match text.trim().strip_prefix(begin) {
        Some(rest) => rest.strip_suffix(end)?,
        None => text,
    };
    let signature: String = inside.split_ascii_whitespace().collect();
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    (!signature.is_empty() && signature.bytes().all(is_base64)).then_some(signature)
}

fn row(item: &Item) -> String {
    let targets: Vec<&str> = item.targets.iter().map(|target| target.as_str()).collect();
    [
        item.id.to_string(),
        item.state.as_str().to_owned(),
        format!("{}/{}", item.signed.len(), item.needed),
        audit::rfc3339(item.ends.saturating_mul(1000)),
        item.action.to_string(),
        text::escaped(&targets.join(","), CELL),
        item.person.to_string(),
        text::escaped(item.reason.as_str(), CELL),
    ]
    .join("\t")
}

fn state(item: &Item) -> String {
    let state = match item.state {
        ApprovalState::Approved if !item.open => "carried out",
        state => state.as_str(),
    };
    let until = audit::rfc3339(item.ends.saturating_mul(1000));
    let mut words = format!(
        "{}: {state}, {} of {} signed, until {until}",
        item.id,
        item.signed.len(),
        item.needed
    );
    for key in &item.signed {
        words.push_str(&format!("\n  signed by {key}"));
    }
    words
}

/// A name of a file as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@,+%".contains(c);
    if name.chars().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_found_with_its_armour_and_without() {
        let armoured = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\nAAAA+/==\n-----END SSH SIGNATURE-----\n";
        assert_eq!(unarmoured(armoured).as_deref(), Some("U1NIU0lHAAAA+/=="));
        assert_eq!(
            unarmoured(&armoured.replace('\n', "\r\n")).as_deref(),
            Some("U1NIU0lHAAAA+/==")
        );
        assert_eq!(unarmoured("U1NIU0lH\n").as_deref(), Some("U1NIU0lH"));
        for none in [
            "",
            "\n",
            "-----BEGIN SSH SIGNATURE-----\nAAAA\n",
            "ssh-ed25519 AAAA \u{1b}[2J",
            "-----END SSH SIGNATURE-----",
        ] {
            assert_eq!(unarmoured(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_line_to_sign_takes_any_name_of_a_file() {
        assert_eq!(
            signing(&quoted("a b")),
            "ssh-keygen -Y sign -n approve.v1@writ.internal -f KEY 'a b'"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("/tmp/s.txt"), "/tmp/s.txt");
    }
}
