//! The accounts of the private world: numbers that no distribution gives to anyone and that fit a user namespace (< 65,536).

/// Whom a process inside a root runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Name, for messages and for the `passwd` file of the roots.
    pub name: &'static str,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'static [u32],
}

/// Group of those who ship logs.
pub const WRIT_LOGS: u32 = 64103;
/// Group of those who may talk to the relay.
pub const WRIT_USERS: u32 = 64130;

/// The world's root.
pub const ROOT: Who = Who {
    name: "root",
    uid: 0,
    gid: 0,
    groups: &[],
};
/// Logs in on a target; whom actions run as.
pub const RUNNER: Who = Who {
    name: "agent-runner",
    uid: 64101,
    gid: 64101,
    groups: &[],
};
/// Owns log, ledger and receipt key of a target.
pub const EXEC: Who = Who {
    name: "writ-exec",
    uid: 64102,
    gid: 64102,
    groups: &[],
};
/// The CA.
pub const CA: Who = Who {
    name: "writ-ca",
    uid: 64104,
    gid: 64104,
    groups: &[],
};
/// The relay: a member of the CA's group, which is who may connect to it.
pub const RELAY: Who = Who {
    name: "writ-relay",
    uid: 64110,
    gid: 64110,
    groups: &[64104],
};
/// A person whose MCP client talks to the relay.
pub const ALICE: Who = Who {
    name: "alice",
    uid: 64120,
    gid: WRIT_USERS,
    groups: &[],
};
/// A person whom the relay knows and whom the CA's policy gives nothing.
pub const BOB: Who = Who {
    name: "bob",
    uid: 64121,
    gid: WRIT_USERS,
    groups: &[],
};
/// An account of a target, or of the control host, that has nothing to do with Writ.
pub const STRANGER: Who = Who {
    name: "stranger",
    uid: 64125,
    gid: 64125,
    groups: &[],
};
/// What sshd's unprivileged half runs as.
pub const SSHD: Who = Who {
    name: "sshd",
    uid: 64106,
    gid: 65534,
    groups: &[],
};

/// `passwd` and `group` of a root that holds these accounts. Every password is `*`: no password matches, nobody is locked.
pub(crate) fn account_files(accounts: &[(Who, &str)], groups: &[(&str, u32)]) -> [(&'static str, u32, String); 4] {
    let mut passwd =
        String::from("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    let mut shadow = String::from("root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n");
    let mut group = String::from("root:x:0:\nshadow:x:42:\nnogroup:x:65534:\n");
    let mut gshadow = String::from("root:*::\nshadow:*::\nnogroup:*::\n");
    for (name, gid) in groups {
        group.push_str(&format!("{name}:x:{gid}:\n"));
        gshadow.push_str(&format!("{name}:*::\n"));
    }
    for (who, shell) in accounts {
        let Who { name, uid, gid, .. } = who;
        passwd.push_str(&format!("{name}:x:{uid}:{gid}::/:{shell}\n"));
        shadow.push_str(&format!("{name}:*:20000:0:99999:7:::\n"));
    }
    [
        ("etc/passwd", 0o644, passwd),
        ("etc/shadow", 0o640, shadow),
        ("etc/group", 0o644, group),
        ("etc/gshadow", 0o640, gshadow),
    ]
}
