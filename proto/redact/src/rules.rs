//! The table of rules: a literal, the kind of secret that it tells of, and how to read what stands around it.
//!
//! A new form of secret is a row here, its words in [`Kind::finds`], and two lines in `tests/table.rs`.

use crate::block;
use crate::bytes::{ALNUM, BASE64, BASE64_URL, CAPITALS, CRYPT, NAME, QUERY, WORD};
use crate::kind::Kind;
use crate::pair::{Doubt, Key};
use crate::token::Run;

/// One row.
pub(crate) struct Rule {
    /// Found in any case; a [`Shape::Token`]'s must then have exactly this one.
    pub(crate) literal: &'static str,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
}

/// How what stands around a literal is read.
pub(crate) enum Shape {
    Token(Run),
    Pair(Key),
    Authorization,
    Bearer,
    Cookie,
    Url,
    Jwt,
    BlockBegin,
    BlockEnd,
}

const fn rule(literal: &'static str, kind: Kind, shape: Shape) -> Rule {
    Rule { literal, kind, shape }
}

const fn token(literal: &'static str, kind: Kind, run: Run) -> Rule {
    rule(literal, kind, Shape::Token(run))
}

const fn key(literal: &'static str, kind: Kind, doubt: Doubt, tails: &'static [&'static str]) -> Rule {
    rule(literal, kind, Shape::Pair(Key { doubt, tails }))
}

const ENCODED: &[&str] = &["base64", "b64", "value"];
const PRIVATE_KEY: &[&str] = &["pem", "data", "base64", "b64", "value"];
const SECRET: &[&str] = &[
    "key",
    "keybase",
    "accesskey",
    "token",
    "base64",
    "b64",
    "value",
    "string",
];
const TOKEN: &[&str] = &["secret", "value"];

pub(crate) static RULES: &[Rule] = &[
    rule(block::BEGIN, Kind::PrivateKey, Shape::BlockBegin),
    rule(block::END, Kind::PrivateKey, Shape::BlockEnd),
    token("AGE-SECRET-KEY-1", Kind::PrivateKey, Run::new(&CAPITALS, 40).word()),
    rule("eyJ", Kind::Jwt, Shape::Jwt),
    // Prefixes that occur in nothing else may stand anywhere; short ones begin a word.
    token("ghp_", Kind::GithubToken, Run::new(&WORD, 36)),
    token("gho_", Kind::GithubToken, Run::new(&WORD, 36)),
    token("ghu_", Kind::GithubToken, Run::new(&WORD, 36)),
    token("ghs_", Kind::GithubToken, Run::new(&NAME, 36)),
    token("ghr_", Kind::GithubToken, Run::new(&WORD, 36)),
    token("github_pat_", Kind::GithubToken, Run::new(&WORD, 40)),
    token("glpat-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("gldt-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("glrt-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("glcbt-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("glptt-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("glft-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("glsoat-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("glagent-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("gloas-", Kind::GitlabToken, Run::new(&NAME, 20)),
    token("xoxb-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxp-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxa-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxo-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxs-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxr-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxc-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxd-", Kind::SlackToken, Run::new(&QUERY, 10)),
    token("xoxe-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xoxe.xox", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token("xapp-", Kind::SlackToken, Run::new(&BASE64_URL, 10)),
    token(
        "hooks.slack.com/services/",
        Kind::SlackToken,
        Run::new(&BASE64, 16).keeps(),
    ),
    token(
        "hooks.slack.com/workflows/",
        Kind::SlackToken,
        Run::new(&BASE64, 16).keeps(),
    ),
    token(
        "hooks.slack.com/triggers/",
        Kind::SlackToken,
        Run::new(&BASE64, 16).keeps(),
    ),
    token("sk_live_", Kind::StripeKey, Run::new(&ALNUM, 16).word()),
    token("rk_live_", Kind::StripeKey, Run::new(&ALNUM, 16).word()),
    token("sk_test_", Kind::StripeKey, Run::new(&ALNUM, 16).word()),
    token("rk_test_", Kind::StripeKey, Run::new(&ALNUM, 16).word()),
    token("whsec_", Kind::StripeKey, Run::new(&QUERY, 16).word()),
    token("npm_", Kind::NpmToken, Run::new(&ALNUM, 36)),
    key("_authToken", Kind::NpmToken, Doubt::Word, &[]),
    token("pypi-AgE", Kind::PypiToken, Run::new(&BASE64_URL, 50)),
    token("sk-ant-", Kind::LlmKey, Run::new(&BASE64_URL, 20).word()),
    token("sk-proj-", Kind::LlmKey, Run::new(&BASE64_URL, 20).word()),
    token("sk-svcacct-", Kind::LlmKey, Run::new(&BASE64_URL, 20).word()),
    token("sk-admin-", Kind::LlmKey, Run::new(&BASE64_URL, 20).word()),
    token("sk-or-", Kind::LlmKey, Run::new(&BASE64_URL, 20).word()),
    token("sk-", Kind::LlmKey, Run::new(&ALNUM, 32).word()),
    token("hf_", Kind::LlmKey, Run::new(&ALNUM, 30).word()),
    token("gsk_", Kind::LlmKey, Run::new(&ALNUM, 40).word()),
    token("xai-", Kind::LlmKey, Run::new(&ALNUM, 40).word()),
    token("pplx-", Kind::LlmKey, Run::new(&ALNUM, 40).word()),
    token("r8_", Kind::LlmKey, Run::new(&ALNUM, 36).word()),
    token("nvapi-", Kind::LlmKey, Run::new(&BASE64_URL, 40).word()),
    token("AKIA", Kind::AwsKey, Run::new(&CAPITALS, 16).exact().word()),
    token("ASIA", Kind::AwsKey, Run::new(&CAPITALS, 16).exact().word()),
    token("X-Amz-Signature=", Kind::AwsKey, Run::new(&ALNUM, 32).keeps()),
    token("AIza", Kind::GcpKey, Run::new(&BASE64_URL, 35).word()),
    token("ya29.", Kind::GcpKey, Run::new(&NAME, 20).word()),
    token("GOCSPX-", Kind::GcpKey, Run::new(&BASE64_URL, 20).word()),
    token("X-Goog-Signature=", Kind::GcpKey, Run::new(&ALNUM, 32).keeps()),
    key("AccountKey", Kind::AzureKey, Doubt::Word, &[]),
    key("SharedAccessKey", Kind::AzureKey, Doubt::Word, &[]),
    token("?sig=", Kind::AzureKey, Run::new(&QUERY, 30).keeps()),
    token("&sig=", Kind::AzureKey, Run::new(&QUERY, 30).keeps()),
    token("u0026sig=", Kind::AzureKey, Run::new(&QUERY, 30).keeps()),
    token("&amp;sig=", Kind::AzureKey, Run::new(&QUERY, 30).keeps()),
    token("$1$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$5$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$6$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$y$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$gy$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$7$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$2a$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$2b$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$2y$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$apr1$", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    token("$argon2", Kind::PasswordHash, Run::new(&CRYPT, 20)),
    rule("://", Kind::UrlPassword, Shape::Url),
    rule("authorization", Kind::Authorization, Shape::Authorization),
    rule("bearer", Kind::Authorization, Shape::Bearer),
    rule("cookie", Kind::Cookie, Shape::Cookie),
    key("api_key", Kind::ApiKey, Doubt::None, ENCODED),
    key("api-key", Kind::ApiKey, Doubt::None, ENCODED),
    key("apikey", Kind::ApiKey, Doubt::None, ENCODED),
    key("access_key", Kind::ApiKey, Doubt::Word, ENCODED),
    key("access-key", Kind::ApiKey, Doubt::Word, ENCODED),
    key("accesskey", Kind::ApiKey, Doubt::Word, ENCODED),
    key("password", Kind::Password, Doubt::None, ENCODED),
    key("passwd", Kind::Password, Doubt::None, ENCODED),
    key("passphrase", Kind::Password, Doubt::None, ENCODED),
    key("pwd", Kind::Password, Doubt::Place, ENCODED),
    key("_pass", Kind::Password, Doubt::Verb, &[]),
    key("private_key", Kind::Secret, Doubt::Place, PRIVATE_KEY),
    key("private-key", Kind::Secret, Doubt::Place, PRIVATE_KEY),
    key("privatekey", Kind::Secret, Doubt::Place, PRIVATE_KEY),
    key("secret", Kind::Secret, Doubt::None, SECRET),
    key("token", Kind::Token, Doubt::Word, TOKEN),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_literal_stands_once_and_in_the_words_of_its_kind() {
        let said = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
        for (index, rule) in RULES.iter().enumerate() {
            let twice = RULES[..index]
                .iter()
                .any(|other| other.literal.eq_ignore_ascii_case(rule.literal));
            assert!(!twice, "{} stands twice", rule.literal);
            // `&sig=` and its escapes are one form.
            let literal = rule.literal.trim_start_matches("u0026").trim_start_matches("&amp;");
            let literal = said(literal.trim_start_matches(['?', '&']));
            assert!(
                said(rule.kind.finds()).contains(&literal),
                "{} is not in the words",
                rule.literal
            );
        }
    }
}
