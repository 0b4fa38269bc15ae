//! What is a secret and what is not: each row has a hostile line, what becomes of it, and a harmless line that looks like
//! it.

#![allow(clippy::unwrap_used, missing_docs)]

use redact::{End, Kind, redact, redact_argv, redact_range, redact_text};

/// Letters and digits that no scanner of repositories takes for a live key, `n` of them.
fn made(n: usize) -> String {
    "Ex4mple0".chars().cycle().take(n).collect()
}

fn capitals(n: usize) -> String {
    "EXAMPLE7".chars().cycle().take(n).collect()
}

fn digits(n: usize) -> String {
    "0123456789abcdef".chars().cycle().take(n).collect()
}

/// A line, with its secret between `⟦` and `⟧`, its kind, and a harmless neighbour.
struct Row {
    kind: Kind,
    hostile: String,
    harmless: String,
}

fn row(kind: Kind, hostile: impl Into<String>, harmless: impl Into<String>) -> Row {
    Row {
        kind,
        hostile: hostile.into(),
        harmless: harmless.into(),
    }
}

fn rows() -> Vec<Row> {
    use Kind::*;
    let uuid = "0192e4a0-7f00-7000-8000-00000000000a";
    let sha1 = digits(40);
    let sha256 = digits(64);
    let jwt = format!("eyJ{}.eyJ{}.{}", made(17), made(30), made(43));
    let pem = |label: &str, newline: &str| {
        let line = made(64);
        format!("-----BEGIN {label}-----{newline}{line}{newline}{line}{newline}-----END {label}-----")
    };
    let mut rows = vec![
        // keys and values
        row(Password, "login password=⟦hunter2⟧ ok", "login password= ok"),
        row(Password, "password: ⟦hunter2⟧", "password: "),
        row(
            Password,
            "  password: ⟦correct horse battery⟧\nuser: bob",
            "  passwords: correct horse battery",
        ),
        row(
            Password,
            r#"{"password": "⟦hun ter2⟧", "user": "bob"}"#,
            r#"{"password": "", "user": "bob"}"#,
        ),
        row(
            Password,
            r#"{"password":"⟦hun\"ter2⟧"}"#,
            r#"{"password":null,"b":"c"}"#,
        ),
        row(
            Password,
            r#"{"log":"{\"password\":\"⟦hunter2⟧\",\"a\":1}"}"#,
            r#"{"log":"{\"password\":\"\",\"a\":1}"}"#,
        ),
        row(Password, "{'password': '⟦hunter2⟧'}", "{'password': None}"),
        row(Password, "DB_PASSWORD=⟦a,b;c&d⟧", "DB_PASSWORD=${DB_PASSWORD}"),
        row(
            Password,
            "export MYSQL_PWD='⟦hunter2⟧'",
            "PWD=/root OLDPWD=/var/log HOME=/ PWD=/",
        ),
        row(
            Password,
            "Server=db;Uid=sa;Password=⟦hun,ter2⟧;Timeout=3",
            "Server=db;Uid=sa;Persist Security Info=False",
        ),
        row(
            Password,
            "GET /?a=1&password=⟦hunter2⟧&b=2 HTTP/1.1",
            "GET /password-reset?a=1&b=2 HTTP/1.1",
        ),
        row(
            Password,
            "next=%2Flogin%3Fpassword%3D⟦hunter2⟧%26b%3D2",
            "next=%2Flogin%3Fpassword%3D%26b%3D2",
        ),
        row(Password, "passwd:⟦hunter2⟧", "passwd:         files systemd"),
        row(
            Password,
            "ssh key passphrase = ⟦hunter2⟧",
            "enter the passphrase for the key",
        ),
        row(
            Password,
            "$config['password'] = '⟦hunter2⟧';",
            "$config['password'] = $PASSWORD;",
        ),
        row(
            Password,
            "define( 'DB_PASSWORD', '⟦hunter2⟧' );",
            "fields = ['password', 'username']",
        ),
        row(Password, "<password>⟦hunter2⟧</password>", "<password></password>"),
        row(
            Password,
            "mysql --password ⟦hunter2⟧ -u bob",
            "  --password PASSWORD  the password",
        ),
        row(
            Password,
            "map[password:⟦hunter2⟧ user:bob]",
            "map[passwords:3 user:bob]",
        ),
        row(Password, "SMTP_PASS=⟦hunter2⟧", "tests_pass=212"),
        row(Password, r#"password => "⟦hunter2⟧","#, "password => required"),
        row(Password, "db.password := b\"⟦hunter2⟧\"", "db::password::Reader"),
        row(Secret, "client_secret=⟦s3cr3t⟧", "client_secret_name: shop"),
        row(Secret, "\"clientSecret\" : \"⟦s3cr3t⟧\"", "secretName: shop-tls"),
        row(Secret, "SECRET_KEY_BASE=⟦abcdef⟧", "secretKeyRef:\n  name: shop"),
        row(Secret, "aws_secret_access_key = ⟦abc/def+ghi⟧", "the secretary: Jane"),
        row(
            Secret,
            "PrivateKey = ⟦yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=⟧",
            "private_key_id = 1",
        ),
        row(Secret, "private_key: '⟦abc⟧'", "private_key: /etc/ssl/private/a.pem"),
        row(
            Token,
            "token=⟦abc12345⟧ user=bob",
            "token=42 tokens=123456789 max_tokens: 4096",
        ),
        row(
            Token,
            "\"access_token\": \"⟦abcdefghijklmnop⟧\"",
            "\"token_type\": \"bearer\", \"tokens\": 1234",
        ),
        row(Token, "X-Auth-Token: ⟦0192e4a07f00⟧", "X-Request-Id: 0192e4a07f00"),
        row(Token, "/cb?refresh_token=⟦abc12345⟧&state=1", "/cb?state=abc12345"),
        row(
            Token,
            "PRIVATE-TOKEN: ⟦abc12345⟧",
            "invalid token: unexpected end of input",
        ),
        row(
            Token,
            "curl --token ⟦abc12345⟧ http://a",
            "auth: token expired, retrying in 3s",
        ),
        row(ApiKey, "api_key=⟦abc⟧", "key=value monkey=banana"),
        row(ApiKey, "X-Api-Key: ⟦abc⟧", "X-Api-Version: abc"),
        row(ApiKey, "{\"apiKey\":\"⟦abc⟧\"}", "{\"apiKeys\":3}"),
        row(ApiKey, "?apikey=⟦abc⟧&q=1", "?q=apikey"),
        row(ApiKey, "access_key: ⟦abc12345⟧", "access_key: required"),
        // headers
        row(Authorization, "Authorization: Bearer ⟦abc⟧", "authorization: required"),
        row(
            Authorization,
            "> Authorization: Basic ⟦dXNlcjpwdw==⟧\r\n> Host: a",
            "Authorization: none\r\n> Host: a",
        ),
        row(
            Authorization,
            "Proxy-Authorization: Basic ⟦dXNlcjpwdw==⟧",
            "Proxy-Connection: keep-alive",
        ),
        row(
            Authorization,
            "curl -H 'authorization: bearer ⟦abc⟧' http://a",
            "curl -H 'accept: text/html' http://a",
        ),
        row(
            Authorization,
            "{\"Authorization\":\"Bearer ⟦abc⟧\",\"a\":1}",
            "{\"authorization_code\":\"none\",\"a\":1}",
        ),
        row(
            Authorization,
            "Authorization: Digest ⟦username=\"bob\", response=\"0123\"⟧\nnext",
            "Authorization checks took 3 ms",
        ),
        row(
            Authorization,
            "Authorization: ⟦0192e4a07f00⟧",
            "authorization: failed for user bob",
        ),
        row(
            Authorization,
            "headers: map[Authorization:[Bearer ⟦abc⟧]]",
            "headers: map[Accept:[text/html]]",
        ),
        row(
            Authorization,
            "sent bearer ⟦abc12345⟧ to the server",
            "the bearer of bad news, a standard bearer",
        ),
        row(
            Cookie,
            "Cookie: ⟦sid=abc; theme=\"dark\"⟧\r\nHost: a",
            "Cookie: none\r\nHost: a",
        ),
        row(Cookie, "Set-Cookie: ⟦sid=abc; Path=/; HttpOnly⟧", "cookie: accepted"),
        row(
            Cookie,
            "curl -H 'Cookie: ⟦sid=abc⟧' http://a",
            "cookies=3 cookie_domain=a",
        ),
        row(Cookie, "{\"cookie\":\"⟦sid=abc⟧\"}", "{\"cookie\":\"\"}"),
        // URLs
        row(
            UrlPassword,
            "postgres://shop:⟦hunter2⟧@db:5432/shop",
            "postgres://shop@db:5432/shop",
        ),
        row(UrlPassword, "redis://:⟦p@ss⟧@cache:6379", "redis://cache:6379"),
        row(
            UrlPassword,
            "git+https://bob:⟦hunter2⟧@git.example/x.git",
            "ssh://git@git.example:22/x.git",
        ),
        row(UrlPassword, "amqp://bob:⟦hunter2⟧@mq", "http://a:8080/@scope/x?u=b:c@d"),
        row(
            UrlPassword,
            "\"https://bob:⟦hunter2⟧@a/\"",
            "docker://alpine:3.19@sha256:0123",
        ),
        row(
            UrlPassword,
            "mongodb+srv://bob:⟦hunter2⟧@a",
            "mongodb+srv://bob:${PW}@a",
        ),
        // web tokens
        row(
            Jwt,
            format!("cookie is ⟦{jwt}⟧."),
            format!("data:image/png;base64,eyJ{}", made(400)),
        ),
        row(Jwt, format!("\"msg\\n⟦{jwt}⟧\""), format!("x{jwt}")),
        row(
            Jwt,
            format!("\u{1b}[1;32m⟦{jwt}⟧\u{1b}[0m"),
            "eyJ.eyJ.eyJ eyJust.a.word",
        ),
        row(
            Jwt,
            format!("⟦eyJ{0}..{0}.{0}.{0}⟧", made(20)),
            format!("eyJ{}.txt", made(20)),
        ),
        // keys in blocks
        row(
            PrivateKey,
            format!("a\n⟦{}⟧\nb", pem("PRIVATE KEY", "\n")),
            pem("CERTIFICATE", "\n"),
        ),
        row(
            PrivateKey,
            format!("⟦{}⟧", pem("RSA PRIVATE KEY", "\r\n")),
            pem("PUBLIC KEY", "\n"),
        ),
        row(
            PrivateKey,
            format!("⟦{}⟧", pem("EC PRIVATE KEY", "\n")),
            pem("CERTIFICATE REQUEST", "\n"),
        ),
        row(
            PrivateKey,
            format!("⟦{}⟧", pem("ENCRYPTED PRIVATE KEY", "\n")),
            pem("X509 CRL", "\n"),
        ),
        row(
            PrivateKey,
            format!("⟦{}⟧", pem("OPENSSH PRIVATE KEY", "\n")),
            format!("ssh-ed25519 AAAAC3Nza{} bob@a", made(60)),
        ),
        row(
            PrivateKey,
            format!("⟦{}⟧", pem("PGP PRIVATE KEY BLOCK", "\n")),
            pem("PGP SIGNATURE", "\n"),
        ),
        row(
            PrivateKey,
            format!("{{\"key\":\"⟦{}⟧\\n\"}}", pem("PRIVATE KEY", "\\n")),
            format!("{{\"key\":\"{}\"}}", pem("CERTIFICATE", "\\n")),
        ),
        row(
            PrivateKey,
            format!("a ⟦-----BEGIN PRIVATE KEY-----\n{}⟧", made(64)),
            "-----BEGIN PRIVATE-----",
        ),
        row(
            PrivateKey,
            format!("cat:\n⟦{0}\n{0}\n-----END PRIVATE KEY-----⟧\nb", made(64)),
            "end\n-----END PRIVATE KEY-----",
        ),
        row(
            PrivateKey,
            format!("⟦AGE-SECRET-KEY-1{}⟧", capitals(58)),
            "AGE-SECRET-KEY-1 is a prefix",
        ),
        // clouds
        row(
            AwsKey,
            format!("id ⟦AKIA{}⟧", capitals(16)),
            format!("id XAKIA{0} AKIA{0}Q akia{0}", capitals(16)),
        ),
        row(AwsKey, format!("⟦ASIA{}⟧,x", capitals(16)), "ASIA AND AFRICA"),
        row(
            AwsKey,
            format!("/?X-Amz-Signature=⟦{sha256}⟧&a=b"),
            format!("/?etag={sha256}"),
        ),
        row(
            GcpKey,
            format!("/?key=⟦AIza{}⟧", made(35)),
            format!("/?key={}", made(35)),
        ),
        row(GcpKey, format!("⟦ya29.{}⟧", made(40)), "ya29.1"),
        row(GcpKey, format!("⟦GOCSPX-{}⟧", made(28)), "GOCSPX-"),
        row(
            GcpKey,
            format!("X-Goog-Signature=⟦{sha256}⟧"),
            format!("X-Goog-Hash=md5 {sha256}"),
        ),
        row(
            AzureKey,
            format!("AccountName=a;AccountKey=⟦{}==⟧;x=y", made(86)),
            "AccountName=a;AccountKeyVersion=1".to_owned(),
        ),
        row(
            AzureKey,
            format!("SharedAccessKeyName=Root;SharedAccessKey=⟦{}=⟧", made(43)),
            "SharedAccessKeyName=RootManageSharedAccessKey",
        ),
        row(
            AzureKey,
            format!("https://a.blob/x?sv=1&sig=⟦{}%3D⟧&se=2", made(43)),
            "https://a.blob/x?sig=1&config=2",
        ),
        // hashes of passwords
        row(
            PasswordHash,
            format!("root:⟦$6$salt${}⟧:19000:0:", made(86)),
            "root:*:19000:0:99999:7:::",
        ),
        row(
            PasswordHash,
            format!("bob:⟦$y$j9T$salt${}⟧:1", made(43)),
            "costs $5 and $6, $1$2",
        ),
        row(PasswordHash, format!("⟦$2b$12${}⟧", made(53)), "$2b$"),
        row(
            PasswordHash,
            format!("⟦$argon2id$v=19$m=65536,t=3,p=4$c2FsdA${}⟧", made(43)),
            "argon2id is slow",
        ),
    ];
    // prefixes and runs
    for (kind, prefix, least) in [
        (GithubToken, "ghp_", 36),
        (GithubToken, "gho_", 36),
        (GithubToken, "ghu_", 36),
        (GithubToken, "ghs_", 36),
        (GithubToken, "ghr_", 36),
        (GithubToken, "github_pat_", 40),
        (GitlabToken, "glpat-", 20),
        (GitlabToken, "gldt-", 20),
        (GitlabToken, "glrt-", 20),
        (GitlabToken, "glcbt-", 20),
        (GitlabToken, "glptt-", 20),
        (GitlabToken, "glft-", 20),
        (GitlabToken, "glsoat-", 20),
        (GitlabToken, "glagent-", 20),
        (GitlabToken, "gloas-", 20),
        (SlackToken, "xoxb-", 10),
        (SlackToken, "xoxp-", 10),
        (SlackToken, "xoxa-", 10),
        (SlackToken, "xoxo-", 10),
        (SlackToken, "xoxs-", 10),
        (SlackToken, "xoxr-", 10),
        (SlackToken, "xoxc-", 10),
        (SlackToken, "xoxd-", 10),
        (SlackToken, "xoxe-", 10),
        (SlackToken, "xoxe.xox", 10),
        (SlackToken, "xapp-", 10),
        (StripeKey, "sk_live_", 16),
        (StripeKey, "rk_live_", 16),
        (StripeKey, "sk_test_", 16),
        (StripeKey, "rk_test_", 16),
        (StripeKey, "whsec_", 16),
        (NpmToken, "npm_", 36),
        (PypiToken, "pypi-AgE", 50),
        (LlmKey, "sk-ant-", 20),
        (LlmKey, "sk-proj-", 20),
        (LlmKey, "sk-svcacct-", 20),
        (LlmKey, "sk-admin-", 20),
        (LlmKey, "sk-or-", 20),
        (LlmKey, "sk-", 32),
        (LlmKey, "hf_", 30),
        (LlmKey, "gsk_", 40),
        (LlmKey, "xai-", 40),
        (LlmKey, "pplx-", 40),
        (LlmKey, "r8_", 36),
        (LlmKey, "nvapi-", 40),
    ] {
        rows.push(row(
            kind,
            format!("a ⟦{prefix}{}⟧ b", made(least)),
            format!("a {prefix}{} b", made(least - 1)),
        ));
        rows.push(row(
            kind,
            format!("a=\"⟦{prefix}{}⟧\"", made(least + 9)),
            format!("{} b", prefix.to_uppercase()),
        ));
    }
    for path in ["services", "workflows", "triggers"] {
        let url = format!("https://hooks.slack.com/{path}");
        rows.push(row(
            SlackToken,
            format!("{url}/⟦T0/B0/{}⟧ x", made(24)),
            format!("{url}/T0 x"),
        ));
    }
    rows.push(row(
        NpmToken,
        "//registry.npmjs.org/:_authToken=⟦0192e4a0-7f00-7000⟧",
        "//registry.npmjs.org/:_authToken=${NPM_TOKEN}",
    ));
    // what is no secret beside what only just is one
    for harmless in [
        format!("commit {sha1}"),
        format!("sha256:{sha256}"),
        format!("task {uuid} done"),
        format!("src=\"data:image/png;base64,iVBORw0KGgo{}==\"", made(300)),
        "the desk-lamp-with-a-long-name-of-many-words task-force-abcdefghijklmnopqrstuvwxyz0123456789".to_owned(),
        "npm_config_registry=https://registry.npmjs.org/ npm_lifecycle_event=test".to_owned(),
        "May  1 12:00:00 web-1 sshd[812]: Failed password for root from 192.0.2.7 port 4022 ssh2".to_owned(),
        "May  1 12:00:00 web-1 sudo: pam_unix(sudo:auth): conversation failed, password required".to_owned(),
        "token bucket refilled; secret santa; the password is not logged; cookie jar; bearer".to_owned(),
        "parse error: unexpected token '}' at line 3, column 12".to_owned(),
        "key=value; keyboard: us; key: 7f00".to_owned(),
        "password: ******** token: <redacted> secret: {{ .Values.secret }}".to_owned(),
        "--- PASS: TestTokens (0.00s)".to_owned(),
        "status installed passwd:amd64 1:4.13".to_owned(),
        "Preparing to unpack .../passwd_1%3a4.13_amd64.deb".to_owned(),
        "use vault secret://shop/db".to_owned(),
        "http://[::1]:8080/ https://example.org/a:b@c".to_owned(),
    ] {
        rows.push(row(Password, "password=⟦hunter2⟧", harmless));
    }
    rows
}

/// REQ-REDACT-1, REQ-REDACT-3, REQ-REDACT-10
#[test]
fn each_hostile_line_loses_its_secret_and_each_harmless_one_stays() {
    let mut faults = Vec::new();
    for Row {
        kind,
        hostile,
        harmless,
    } in rows()
    {
        let (start, rest) = hostile.split_once('⟦').unwrap();
        let (secret, end) = rest.split_once('⟧').unwrap();
        let expected = format!("{start}[redacted:{}]{end}", kind.name());
        let whole = format!("{start}{secret}{end}");
        let (shown, count) = redact_text(&whole);
        if shown != expected || count != 1 {
            faults.push(format!("{hostile:?}\n  became {shown:?} ({count})"));
        }
        let (shown, count) = redact_text(&harmless);
        if shown != harmless || count != 0 {
            faults.push(format!("harmless {harmless:?}\n  became {shown:?} ({count})"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_kind_has_a_row() {
    let rows = rows();
    for kind in Kind::ALL {
        assert!(rows.iter().any(|row| row.kind == kind), "{}", kind.name());
    }
}

/// REQ-REDACT-7, REQ-REDACT-8
#[test]
fn every_secret_is_found_when_the_range_begins_within_it_and_when_it_ends_within_it() {
    for Row { kind, hostile, .. } in rows() {
        let (before, rest) = hostile.split_once('⟦').unwrap();
        let (secret, after) = rest.split_once('⟧').unwrap();
        let whole = format!("{before}{secret}{after}");
        let middle = before.len() + secret.len() / 2;
        if !whole.is_char_boundary(middle) {
            continue;
        }
        let (first, second) = whole.split_at(middle);
        let shown = redact_range(first.as_bytes(), second.as_bytes(), End::Whole);
        let expected = format!("[redacted:{}]{after}", kind.name());
        assert_eq!(String::from_utf8_lossy(&shown.bytes), expected, "begun in {hostile:?}");
        assert_eq!(shown.count, 1);
        // What has no beginning is told by its end, which is cut off.
        if secret.contains("-----END") && !secret.contains("-----BEGIN") {
            continue;
        }
        let shown = redact_range(b"", first.as_bytes(), End::Cut);
        let left = String::from_utf8_lossy(&shown.bytes).into_owned();
        assert!(left.starts_with(before), "cut in {hostile:?}: {left}");
        let left = left.strip_prefix(before).unwrap();
        assert!(
            left.starts_with("[redacted:") && shown.count == 1,
            "cut in {hostile:?}: {left}"
        );
    }
}

/// REQ-REDACT-8
#[test]
fn what_was_cut_off_is_not_missed_where_nothing_was() {
    let start = format!("npm_{}", made(20));
    assert_eq!(redact(start.as_bytes()).count, 0);
    assert_eq!(redact_range(b"", start.as_bytes(), End::Cut).count, 1);
    assert_eq!(redact_range(b"", b"password=no", End::Cut).count, 1);
    assert_eq!(redact_range(b"", b"https://bob:hun", End::Cut).count, 1);
    assert_eq!(redact_range(b"", b"https://bob/hun", End::Cut).count, 0);
}

#[test]
fn the_secret_of_an_aws_key_id_is_found_beside_it_and_nothing_like_it_elsewhere() {
    let id = format!("AKIA{}", capitals(16));
    let secret = format!("wJalrXUt/{}", made(31));
    let found = format!("id,{id},{secret}\n{secret} {id}");
    let shown = redact(found.as_bytes());
    let expected = "id,[redacted:aws-key],[redacted:aws-key]\n[redacted:aws-key] [redacted:aws-key]";
    assert_eq!(String::from_utf8_lossy(&shown.bytes), expected);
    assert_eq!(redact(format!("x {secret}").as_bytes()).count, 0);
    let far = format!("{id} {} {secret} commit {}", " ".repeat(300), digits(40));
    assert_eq!(redact(far.as_bytes()).count, 1);
    let hash = format!("{id} commit {}", digits(40));
    assert_eq!(redact(hash.as_bytes()).count, 1);
}

/// REQ-REDACT-9
#[test]
fn a_private_key_without_its_last_or_its_first_line_is_hidden_as_far_as_it_goes() {
    let line = made(64);
    let (shown, count) = redact_text("a\n-----BEGIN EC PRIVATE KEY-----\nb\nc d\n");
    assert_eq!((&*shown, count), ("a\n[redacted:private-key]", 1));
    let tail = format!("a b\n{line}\n{line}\n-----END EC PRIVATE KEY-----\nc");
    assert_eq!(redact_text(&tail), ("a b\n[redacted:private-key]\nc".into(), 1));
    let certificate = format!("{line}\n-----END CERTIFICATE-----\n");
    assert_eq!(redact_text(&certificate).1, 0);
    // An end that is another block's does not end a key.
    let foreign = format!("-----BEGIN PRIVATE KEY-----\n-----END CERTIFICATE-----\n{line}\n");
    assert_eq!(redact_text(&foreign), ("[redacted:private-key]".into(), 1));
}

/// REQ-REDACT-2
#[test]
fn where_secrets_overlap_one_mark_stands_for_all_and_nothing_of_any_is_left() {
    for (text, expected) in [
        (
            format!("Authorization: Bearer eyJ{0}.{0}.{0}", made(20)),
            "Authorization: Bearer [redacted:jwt]".to_owned(),
        ),
        (
            format!("password=x-ghp_{},y rest", made(36)),
            "password=[redacted:password] rest".to_owned(),
        ),
        (
            format!(
                "private_key: -----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\nb",
                made(64)
            ),
            "private_key: [redacted:private-key]\nb".to_owned(),
        ),
        (
            "password=token=\"a b\" c".to_owned(),
            "password=[redacted:password]\"a b\" c".to_owned(),
        ),
        (
            "password=postgres://bob:a;b@db x".to_owned(),
            "password=[redacted:password] x".to_owned(),
        ),
    ] {
        let (shown, _) = redact_text(&text);
        assert_eq!(shown, expected);
    }
}

#[test]
fn a_service_account_keeps_everything_but_its_key() {
    let file = format!(
        r#"{{"type":"service_account","private_key_id":"{}","private_key":"-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n","token_uri":"https://oauth2.googleapis.com/token"}}"#,
        digits(40),
        made(64)
    );
    let expected = format!(
        r#"{{"type":"service_account","private_key_id":"{}","private_key":"[redacted:secret]","token_uri":"https://oauth2.googleapis.com/token"}}"#,
        digits(40)
    );
    assert_eq!(redact_text(&file), (expected.into(), 1));
}

#[test]
fn arguments_lose_what_follows_a_flag_that_names_a_secret() {
    let token = format!("ghp_{}", made(36));
    let argv = [
        "a",
        "--db-password",
        "hunter2",
        "--token-file",
        "/x",
        "--password",
        "--verbose",
        "--secret",
        "s",
        "--url",
        "x://u:p@h",
        &token,
        "password",
        "word",
    ];
    let (shown, count) = redact_argv(argv);
    let expected = [
        "a",
        "--db-password",
        "[redacted:password]",
        "--token-file",
        "/x",
        "--password",
        "--verbose",
        "--secret",
        "[redacted:secret]",
        "--url",
        "x://u:[redacted:url-password]@h",
        "[redacted:github-token]",
        "password",
        "word",
    ];
    assert_eq!(shown, expected);
    assert_eq!(count, 4);
}
