//! Other ways in, beside the one login: the task CA trusted elsewhere, and what runs before a session.
//!
//! `sshd -T` answers for one login; a `Match` block for another address or account would go unseen. So every line of the
//! configuration is looked at, and every file that makes a key count for a login is compared with the task CA's keys.

use std::path::{Path, PathBuf};

use openssh::key::PublicKey;

use super::report::{Check, Report};
use super::settings::Sshd;
use super::sshd_text::Line;
use super::{CA, tools};

const SSHRC: &str = "/etc/ssh/sshrc";
/// The one place where the task CA may be trusted.
const OURS: &str = "user agent-runner";

const ELSEWHERE: Check = Check {
    name: "ca_elsewhere",
    what: "the task CA is trusted inside `Match User agent-runner` and nowhere else",
    why: "outside of it the task CA is a key to every account, root's too",
    mend: "take the line out, or the key out of the file it names",
};
const RC: Check = Check {
    name: "sshrc",
    what: "there is no `/etc/ssh/sshrc`",
    why: "it runs through /bin/sh before every session, and no option of sshd stops it",
    mend: "`mv /etc/ssh/sshrc /etc/ssh/sshrc.away`",
};

pub(super) const CHECKS: &[&Check] = &[&ELSEWHERE, &RC];

#[derive(Debug, Clone)]
pub(super) struct Login {
    /// The `TrustedUserCAKeys` lines.
    trusts: Vec<(Line, Holds)>,
    /// Files of authorized keys with the line that holds a key of the task CA.
    authorized: Vec<(PathBuf, usize)>,
    sshrc: Result<bool, String>,
}

/// Whether a file holds a key of the task CA.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Unknown(String),
}

pub(super) fn look(sshd: &Sshd, text: &[Line], cas: &[PublicKey]) -> Login {
    let trusts = text
        .iter()
        .filter(|line| line.keyword == "trustedusercakeys" && line.value != "none")
        .map(|line| (line.clone(), holds(Path::new(&line.value), cas)))
        .collect();
    let patterns = sshd.authorized_keys();
    let passwd = tools::read(Path::new("/etc/passwd")).ok().flatten().unwrap_or_default();
    let mut authorized: Vec<(PathBuf, usize)> = passwd
        .lines()
        .flat_map(|account| patterns.iter().filter_map(|pattern| expand(pattern, account)))
        .filter_map(|file| {
            let text = tools::read(&file).ok().flatten()?;
            line_with(&text, cas).map(|line| (file, line))
        })
        .collect();
    authorized.sort();
    authorized.dedup();
    Login {
        trusts,
        authorized,
        sshrc: tools::at(Path::new(SSHRC)).map(|found| found.is_some()),
    }
}

fn holds(keys: &Path, cas: &[PublicKey]) -> Holds {
    if keys == Path::new(CA) {
        return Holds::Yes;
    }
    match tools::read(keys) {
        Ok(Some(text)) if line_with(&text, cas).is_some() => Holds::Yes,
        Ok(_) => Holds::No,
        Err(error) => Holds::Unknown(error),
    }
}

/// The first line that holds one of these keys, counted from 1, whatever options stand before it.
fn line_with(text: &str, cas: &[PublicKey]) -> Option<usize> {
    let blobs: Vec<String> = cas
        .iter()
        .filter_map(|key| key.to_openssh().split(' ').nth(1).map(str::to_owned))
        .collect();
    let holds = |line: &str| {
        line.split_whitespace()
            .any(|word| blobs.iter().any(|blob| blob == word))
    };
    text.lines()
        .position(|line| !line.trim_start().starts_with('#') && holds(line))
        .map(|at| at + 1)
}

/// A file of authorized keys for one line of passwd: the tokens of sshd_config(5), relative to the home.
fn expand(pattern: &str, account: &str) -> Option<PathBuf> {
    let fields: Vec<&str> = account.split(':').collect();
    let (name, uid, home) = (fields.first()?, fields.get(2)?, fields.get(5)?);
    let file = pattern
        .replace("%%", "\0")
        .replace("%h", home)
        .replace("%u", name)
        .replace("%U", uid)
        .replace('\0', "%");
    Some(Path::new(home).join(file))
}

pub(super) fn judge(login: &Login, report: &mut Report) {
    for (line, holds) in &login.trusts {
        let (file, number, keys) = (line.file.display(), line.number, &line.value);
        let within = match line.within.as_deref() {
            Some(OURS) => continue,
            Some(other) => format!("in \"Match {other}\""),
            None => "for every account".to_owned(),
        };
        match holds {
            Holds::Yes => {
                let what = format!("{file}:{number} trusts the task CA {within}");
                report.finding(&ELSEWHERE, what, line.comment_out());
            }
            Holds::No => report.notice(
                &ELSEWHERE,
                format!("{file}:{number} trusts another CA {within}: not Writ's business"),
                format!("ssh-keygen -l -f {keys}"),
            ),
            Holds::Unknown(error) => {
                let what = format!("{file}:{number} trusts a CA {within}: {error}");
                report.finding(&ELSEWHERE, what, line.comment_out());
            }
        }
    }
    for (file, line) in &login.authorized {
        let file = file.display();
        let what = format!("{file}:{line} holds a key of the task CA");
        report.finding(&ELSEWHERE, what, format!("sed -i '{line}d' {file}"));
    }
    report.settle(&ELSEWHERE, "the task CA is trusted for agent-runner alone");
    match &login.sshrc {
        Ok(false) => {}
        Ok(true) => report.finding(&RC, format!("{SSHRC} exists"), format!("mv {SSHRC} {SSHRC}.away")),
        Err(error) => report.finding(&RC, error, format!("ls -l {SSHRC}")),
    }
    report.settle(&RC, "nothing runs before a session");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDa9HFYbHHWKn/qkYSAi8V0dGfLHWNYdmVpvSSlgGJBn";

    fn key() -> PublicKey {
        PublicKey::from_openssh(KEY).unwrap()
    }

    #[test]
    fn a_key_is_found_whatever_stands_around_it() {
        let cas = [key()];
        assert_eq!(line_with(&format!("# note\n\n{KEY} comment\n"), &cas), Some(3));
        assert_eq!(line_with(&format!("cert-authority,no-pty {KEY}"), &cas), Some(1));
        assert_eq!(line_with(&format!("#{KEY}"), &cas), None);
        assert_eq!(line_with("", &cas), None);
        assert_eq!(line_with(KEY, &[]), None);
    }

    #[test]
    fn authorized_keys_are_where_sshd_looks() {
        let account = "alice:x:1000:1000::/home/alice:/bin/sh";
        let path = |pattern: &str| expand(pattern, account).unwrap();
        assert_eq!(
            path(".ssh/authorized_keys"),
            Path::new("/home/alice/.ssh/authorized_keys")
        );
        assert_eq!(path("/etc/keys/%u-%U%%"), Path::new("/etc/keys/alice-1000%"));
        assert_eq!(path("%h/k"), Path::new("/home/alice/k"));
        assert!(expand("x", "broken").is_none());
    }

    #[test]
    fn every_other_trust_in_the_task_ca_is_a_finding_and_another_ca_is_a_notice() {
        let line = |within: Option<&str>| Line {
            file: PathBuf::from("/etc/ssh/sshd_config"),
            number: 7,
            within: within.map(str::to_owned),
            keyword: "trustedusercakeys".to_owned(),
            value: "/etc/x.pub".to_owned(),
        };
        let judged = |within, holds, authorized: &[(PathBuf, usize)], sshrc| {
            let mut report = Report::default();
            let login = Login {
                trusts: vec![(line(within), holds)],
                authorized: authorized.to_vec(),
                sshrc,
            };
            judge(&login, &mut report);
            report.found()
        };
        assert!(judged(Some(OURS), Holds::Yes, &[], Ok(false)).is_empty());
        assert!(judged(None, Holds::No, &[], Ok(false)).is_empty());
        assert_eq!(judged(None, Holds::Yes, &[], Ok(false)), ["ca_elsewhere"]);
        assert_eq!(
            judged(Some("user deploy"), Holds::Yes, &[], Ok(false)),
            ["ca_elsewhere"]
        );
        assert_eq!(
            judged(None, Holds::Unknown(String::new()), &[], Ok(false)),
            ["ca_elsewhere"]
        );
        let keys = [(PathBuf::from("/root/.ssh/authorized_keys"), 1)];
        assert_eq!(
            judged(Some(OURS), Holds::Yes, &keys, Ok(true)),
            ["ca_elsewhere", "sshrc"]
        );
    }
}
