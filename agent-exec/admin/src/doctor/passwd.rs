//! The files of accounts and groups, read as text: what no lookup of one name would tell.

use super::{EXEC, RUNNER};

/// What a password field says. The hash itself goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Password {
    Star,
    Locked,
    Empty,
    Hash,
    Missing,
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// The password field of an account: its own in passwd, or the one in shadow that an `x` stands for.
pub(super) fn password(name: &str, field: &str, shadow: &str) -> Password {
    let field = if field == "x" {
        records(shadow)
            .find(|fields| fields.first() == Some(&name))
            .and_then(|fields| fields.get(1).copied())
    } else {
        Some(field)
    };
    match field {
        None => Password::Missing,
        Some("*") => Password::Star,
        Some("") => Password::Empty,
        Some(locked) if locked.starts_with('!') => Password::Locked,
        Some(_) => Password::Hash,
    }
}

/// Who else is in the group with this number, by membership or as their own.
pub(super) fn members(gid: u32, passwd: &str, group: &str) -> Vec<String> {
    let gid = gid.to_string();
    let listed = records(group)
        .filter(|fields| fields.get(2) == Some(&gid.as_str()))
        .flat_map(|fields| {
            fields
                .get(3)
                .copied()
                .unwrap_or_default()
                .split(',')
                .collect::<Vec<_>>()
        });
    let own = records(passwd)
        .filter(|fields| fields.get(3) == Some(&gid.as_str()))
        .filter_map(|fields| fields.first().copied());
    let mut found: Vec<String> = listed
        .chain(own)
        .filter(|name| !name.is_empty() && *name != RUNNER)
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The first account with a shell that is a person's.
pub(super) fn ordinary(passwd: &str) -> String {
    records(passwd)
        .filter(|fields| !fields.iter().any(|field| [RUNNER, EXEC, "nobody"].contains(field)))
        .filter(|fields| {
            fields
                .get(2)
                .and_then(|uid| uid.parse().ok())
                .is_some_and(|uid: u32| uid >= 1000)
        })
        .find(|fields| fields.get(6).is_some_and(|shell| shell.ends_with("sh")))
        .and_then(|fields| fields.first().copied())
        .unwrap_or("nobody")
        .to_owned()
}

/// Other names with the same uid.
pub(super) fn twins(name: &str, uid: u32, passwd: &str) -> Vec<String> {
    records(passwd)
        .filter(|fields| fields.get(2) == Some(&uid.to_string().as_str()))
        .filter_map(|fields| fields.first().copied())
        .filter(|other| *other != name)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n\
                          agent-runner:x:990:990::/:/usr/libexec/writ/agent-exec\nwrit-exec:x:991:991::/:/usr/sbin/nologin\n\
                          backup:x:34:990::/:/usr/sbin/nologin\nalice:x:1000:1000::/home/alice:/bin/bash\n";

    #[test]
    fn password_fields_are_told_apart() {
        let shadow = "a:*:1\nb:!:1\nc:!*:1\nd::1\ne:$y$j9T$x:1\n";
        for (name, expected) in [
            ("a", Password::Star),
            ("b", Password::Locked),
            ("c", Password::Locked),
            ("d", Password::Empty),
            ("e", Password::Hash),
            ("f", Password::Missing),
        ] {
            assert_eq!(password(name, "x", shadow), expected, "{name}");
        }
        assert_eq!(
            password("a", "", shadow),
            Password::Empty,
            "a password in passwd itself counts"
        );
    }

    #[test]
    fn memberships_and_the_other_account_are_read_from_the_files() {
        let group = "agent-runner:x:990:eve,agent-runner\nadm:x:4:agent-runner,alice\nsudo:x:27:\n";
        assert_eq!(members(990, PASSWD, group), ["backup", "eve"]);
        assert_eq!(twins("eve", 34, PASSWD), ["backup"]);
        assert_eq!(ordinary(PASSWD), "alice");
        assert_eq!(ordinary("root:x:0:0::/root:/bin/sh\n"), "nobody");
    }
}
