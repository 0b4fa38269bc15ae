//! What holds for every input.

#![allow(clippy::unwrap_used, missing_docs)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use redact::{CONTEXT_BYTES, End, redact, redact_range, redact_text};

/// What secrets and their neighbours are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        "password",
        "passwd=",
        "token",
        "secret",
        "api_key",
        "private_key",
        "_authToken",
        "db_pass",
        "SharedAccessKey",
        "authorization",
        "Authorization: Bearer ",
        "Authorization: Digest ",
        "Cookie: ",
        "set-cookie",
        "bearer ",
        "--",
        "=",
        ":",
        ": ",
        " = ",
        "=>",
        ":=",
        "%3D",
        "%26",
        "\"",
        "'",
        "`",
        "\\",
        "\\\"",
        "\\n",
        "\n",
        "\r\n",
        " ",
        "\t",
        "&",
        "&amp;",
        ";",
        ",",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "<",
        ">",
        "</",
        "@",
        "/",
        "://",
        "http://",
        ".",
        "-",
        "_",
        "$",
        "%",
        "\u{1b}[1m",
        "\0",
        "ü",
        "null",
        "${A}",
        "****",
        "define('",
        "b'",
        "eyJ",
        "eyJhbGciOiJIUzI1NiJ9",
        ".eyJzdWIiOiIxMjM0NTYifQ",
        ".0123456789abcdef",
        "ghp_",
        "glpat-",
        "xoxb-",
        "hooks.slack.com/services/",
        "sk-",
        "sk-ant-",
        "sk_live_",
        "npm_",
        "AKIA",
        "AKIAEXAMPLE7EXAMPLE7",
        "ya29.",
        "?sig=",
        "$6$",
        "$2b$12$",
        "-----BEGIN ",
        "-----END ",
        "RSA PRIVATE KEY-----",
        "PRIVATE KEY",
        "-----",
        "[redacted:",
        "[redacted:password]",
        "[redacted:jwt]",
        "redacted",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "Ex4mple0Ex4mple0Ex4mple0Ex4mple0Ex4mple0",
        "hunter2",
        "a",
        "B",
        "7",
    ])
    .prop_map(|word: &str| word.as_bytes().to_vec());
    prop_oneof![8 => words, 1 => vec(any::<u8>(), 0..4)]
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    vec(piece(), 0..24).prop_map(|pieces| pieces.concat())
}

/// Text around a secret: no key and no quote that would reach into it.
fn around() -> impl Strategy<Value = String> {
    "[ -~]{0,40}"
}

fn marks(bytes: &[u8]) -> u64 {
    bytes.windows(10).filter(|part| part == b"[redacted:").count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// REQ-REDACT-4
    #[test]
    fn redacting_twice_is_redacting_once(input in input()) {
        let once = redact(&input).bytes.into_owned();
        let twice = redact(&once);
        prop_assert_eq!(twice.count, 0, "{:?} -> {:?} -> {:?}", String::from_utf8_lossy(&input), String::from_utf8_lossy(&once), String::from_utf8_lossy(&twice.bytes));
        prop_assert_eq!(&*twice.bytes, &once[..]);
    }

    /// REQ-REDACT-3, REQ-REDACT-5
    #[test]
    fn the_count_is_that_of_the_marks_and_nothing_else_changes(input in input()) {
        let input: Vec<u8> = String::from_utf8_lossy(&input).replace("[redacted", "[").into_bytes();
        let shown = redact(&input);
        prop_assert_eq!(marks(&shown.bytes), shown.count);
        if shown.count == 0 {
            prop_assert_eq!(&*shown.bytes, &input[..]);
        }
        // What stands between marks stands in the input, in that order.
        let (mut rest, mut shown) = (&input[..], &shown.bytes[..]);
        while let Some(at) = shown.windows(10).position(|part| part == b"[redacted:") {
            let found = rest.windows(at.max(1)).position(|part| part[..at] == shown[..at]).unwrap_or(usize::MAX);
            prop_assert!(found != usize::MAX || at == 0);
            rest = rest.get(found.saturating_add(at)..).unwrap_or(rest);
            let end = shown[at..].iter().position(|&byte| byte == b']').unwrap();
            shown = &shown[at + end + 1..];
        }
        prop_assert!(rest.ends_with(shown));
    }

    /// REQ-REDACT-5
    #[test]
    fn text_stays_text(input in input()) {
        let text = String::from_utf8_lossy(&input).into_owned();
        let redacted = redact(text.as_bytes());
        let same = redact_text(&text);
        prop_assert_eq!(std::str::from_utf8(&redacted.bytes).unwrap(), &*same.0);
        prop_assert_eq!(redacted.count, same.1);
    }

    /// REQ-REDACT-5
    #[test]
    fn bytes_that_are_no_text_are_kept(input in vec(128_u8.., 0..200)) {
        let shown = redact(&input);
        prop_assert_eq!((&*shown.bytes, shown.count), (&input[..], 0));
    }

    /// REQ-REDACT-7
    #[test]
    fn a_range_shows_nothing_that_the_whole_hides(input in input(), at in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let (before, bytes) = input.split_at(at.index(input.len() + 1));
        let end = if cut { End::Cut } else { End::Whole };
        let shown = redact_range(before, bytes, end);
        let whole = redact_range(b"", &input, end);
        let tail = whole.bytes.len().min(16);
        // A mark that reaches over the start of the range is written anew: what stands after the first mark is the same.
        if shown.count == 0 {
            prop_assert!(whole.bytes.ends_with(bytes));
        } else {
            let after = shown.bytes.iter().position(|&byte| byte == b']').unwrap();
            prop_assert!(whole.bytes.ends_with(&shown.bytes[after.max(shown.bytes.len() - tail.min(shown.bytes.len()))..]));
        }
        prop_assert!(shown.count <= whole.count);
    }

    /// REQ-REDACT-1
    #[test]
    fn a_planted_secret_is_never_in_the_output(before in around(), after in around(), secret in "[A-Za-z0-9]{30,80}", form in 0_usize..17) {
        let digits = format!("{secret}a7");
        let token = match form {
            0 => format!("password={digits}"),
            1 => format!("\"client_secret\": \"{digits}\""),
            2 => format!("token: {digits}"),
            3 => format!("\r\nAuthorization: Bearer {digits}"),
            4 => format!("\nX-Api-Key: {digits}"),
            5 => format!("https://bob:{digits}@example.org/"),
            6 => format!("ghp_{digits}aaaa"),
            7 => format!("glpat-{digits}"),
            8 => format!(" sk-ant-{digits}"),
            9 => format!(" eyJ{digits}.{digits}.{digits}"),
            10 => format!("-----BEGIN PRIVATE KEY-----\n{digits}\n-----END PRIVATE KEY-----"),
            11 => format!("-----BEGIN OPENSSH PRIVATE KEY-----\\n{digits}\\n"),
            12 => format!("xoxb-{digits}"),
            13 => format!("AccountKey={digits}=="),
            14 => format!("$6$salt${digits}"),
            15 => format!("\nCookie: sid={digits}"),
            _ => format!("npm_{digits}aaaa"),
        };
        // A line of its own: what stands before may be half a secret that ends where this one begins.
        let text = format!("{before}\n {token} {after}");
        let shown = redact_text(&text).0.into_owned();
        prop_assert!(!shown.contains(&digits), "{} -> {}", text, shown);
    }
}

/// REQ-REDACT-7
#[test]
fn the_context_of_a_range_covers_a_key_of_rsa_4096() {
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n", "Ex4mple0".repeat(400));
    assert!(key.len() < CONTEXT_BYTES);
    let shown = redact_range(
        key.as_bytes(),
        b"Ex4mple0\n-----END PRIVATE KEY-----\nafter",
        End::Whole,
    );
    assert_eq!((&*shown.bytes, shown.count), (&b"[redacted:private-key]\nafter"[..], 1));
}
