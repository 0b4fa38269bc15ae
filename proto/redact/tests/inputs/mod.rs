//! Inputs that try to be slow, as parts to be repeated; and how long it takes.

use nix::time::{ClockId, clock_gettime};

/// The least time that this thread used for the work, of several runs, in milliseconds: what else the machine does is not
/// counted.
pub(crate) fn used_ms(runs: usize, mut work: impl FnMut()) -> f64 {
    let used = || {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6
    };
    let mut once = || {
        let start = used();
        work();
        used() - start
    };
    (0..runs).map(|_| once()).fold(f64::MAX, f64::min)
}

/// Names and parts.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let base64 = "Ex4mple0".repeat(8);
    let prefixes = "sk-ant-sk-proj-sk-or-glpat-gldt-xoxb-xoxe-xapp-nvapi-AIzaya29.GOCSPX-eyJ";
    let own = |text: &str| text.to_owned();
    vec![
        (
            "ordinary log",
            own(
                "2027-01-15T08:00:00Z web-1 nginx[812]: GET /a/b.html?x=1 200 512 \"Mozilla/5.0\" session of bob opened\n",
            ),
        ),
        ("one letter", own("a")),
        ("base64 lines", format!("{base64}\n")),
        ("blanks", own(" ")),
        ("PEM begins, no ends", own("-----BEGIN PRIVATE KEY-----\n")),
        ("PEM ends, no begins", own("-----END PRIVATE KEY-----\n")),
        (
            "PEM ends after base64",
            format!("{base64}\n-----END PRIVATE KEY-----\n"),
        ),
        ("password= in a row", own("password=")),
        ("password= apart", own("password = ")),
        ("password=a,", own("password=a,")),
        ("password=a&", own("password=a&")),
        ("password=,,,,", own("password=,,,, ")),
        ("password: lines", own("password: a b c\n")),
        ("password=\" unclosed", own("password=\"")),
        ("password=' and \"", own("password='password=\"")),
        ("password\\\"", own("password\\\\\\\\\\\\\\\"")),
        ("token=aaaa", own("token=aaaa")),
        ("token= refused", format!("token={} ", "a-".repeat(60))),
        ("token:words", own("token:word token:")),
        ("keys without an end", own("token-password_secret.")),
        ("<password> on a line", own("<password>a</password>")),
        ("<password> unclosed", own("<password>")),
        ("define()", own("define('password','a');")),
        ("JSON pairs", own("{\"password\":\"a\"},")),
        ("keys before blanks", format!("token{}", " ".repeat(64))),
        ("quotes before keys", own("'cookie:a=\"cookie:a=")),
        ("all keys", own("api_key.secret.private_key.token.password.pwd.cookie=")),
        ("--password a", own("--password a ")),
        ("eyJ run", own("eyJ")),
        ("eyJ. run", own("eyJ.")),
        ("eyJ words", own("eyJ ")),
        ("eyJ%3D", own("%3DeyJ")),
        ("eyJ long parts", format!("eyJ{base64}.{base64} ")),
        ("all prefixes in a run", own(prefixes)),
        ("all prefixes apart", prefixes.replace('-', "- ")),
        ("ghp_ run", own("ghp_")),
        ("sk- words", own("sk- ")),
        ("$1$ run", own("$1$")),
        ("hashes apart", own("$1$ $5$ $6$ ")),
        ("AKIA keys", own("AKIAEXAMPLE7EXAMPLE7 ")),
        ("AKIA run", own("AKIA")),
        ("://", own("://")),
        ("a://b:c@", own("a://b:c@")),
        ("a:// then @", format!("a://{} ", ":@".repeat(40))),
        ("authorization:", own("authorization:")),
        ("authorization: bearer a", own("authorization: bearer a ")),
        ("\"cookie:", own("\"cookie: ")),
        ("cookie: a=b", own("cookie: a=b\n")),
        ("bearer", own("bearer ")),
        ("marks", own("[redacted:password]")),
        ("password=mark", own("password=[redacted:password]")),
        ("zeros", own("\0")),
    ]
}

/// `part` again and again, `len` bytes of it.
pub(crate) fn repeated(part: &str, len: usize) -> Vec<u8> {
    part.bytes().cycle().take(len).collect()
}
