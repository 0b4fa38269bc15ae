//! The kinds of secrets, and what each is in words: the table of the spec, which a test compares.

/// A kind of secret. The more particular come first: where two begin and end together, the first is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`finds` says what each is, in the words of the spec")]
pub enum Kind {
    PrivateKey,
    Jwt,
    GithubToken,
    GitlabToken,
    SlackToken,
    StripeKey,
    NpmToken,
    PypiToken,
    LlmKey,
    AwsKey,
    GcpKey,
    AzureKey,
    PasswordHash,
    UrlPassword,
    Authorization,
    Cookie,
    ApiKey,
    Password,
    Secret,
    Token,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Kind; 20] = [
        Kind::PrivateKey,
        Kind::Jwt,
        Kind::GithubToken,
        Kind::GitlabToken,
        Kind::SlackToken,
        Kind::StripeKey,
        Kind::NpmToken,
        Kind::PypiToken,
        Kind::LlmKey,
        Kind::AwsKey,
        Kind::GcpKey,
        Kind::AzureKey,
        Kind::PasswordHash,
        Kind::UrlPassword,
        Kind::Authorization,
        Kind::Cookie,
        Kind::ApiKey,
        Kind::Password,
        Kind::Secret,
        Kind::Token,
    ];

    /// Its word in a mark: lower-case letters and hyphens.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What it finds, in words: the spec's table.
    pub const fn finds(self) -> &'static str {
        self.row().1
    }

    /// What stands in the place of a secret of this kind.
    pub(crate) fn mark(self) -> String {
        format!("{MARK}{}]", self.name())
    }

    const fn row(self) -> (&'static str, &'static str) {
        match self {
            Kind::PrivateKey => (
                "private-key",
                "`-----BEGIN … PRIVATE KEY…-----` to its `-----END …-----`, on many lines or on one with `\\n`; without an end, to the end of the input; without a beginning, the base64 right before the end. `AGE-SECRET-KEY-1…`",
            ),
            Kind::Jwt => ("jwt", "`eyJ…`: three to five parts of base64url with dots between them"),
            Kind::GithubToken => (
                "github-token",
                "`ghp_`, `gho_`, `ghu_`, `ghs_`, `ghr_` and 36 or more letters and digits; `github_pat_` and 40 or more",
            ),
            Kind::GitlabToken => (
                "gitlab-token",
                "`glpat-`, `gldt-`, `glrt-`, `glcbt-`, `glptt-`, `glft-`, `glsoat-`, `glagent-`, `gloas-` and 20 or more of base64url",
            ),
            Kind::SlackToken => (
                "slack-token",
                "`xoxb-`, `xoxp-`, `xoxa-`, `xoxo-`, `xoxs-`, `xoxr-`, `xoxc-`, `xoxd-`, `xoxe-`, `xoxe.xox`, `xapp-` and 10 or more; what follows `hooks.slack.com/services/`, `hooks.slack.com/workflows/` or `hooks.slack.com/triggers/`",
            ),
            Kind::StripeKey => (
                "stripe-key",
                "`sk_live_`, `rk_live_`, `sk_test_`, `rk_test_`, `whsec_` and 16 or more",
            ),
            Kind::NpmToken => (
                "npm-token",
                "`npm_` and 36 or more letters and digits; the value of `_authToken`",
            ),
            Kind::PypiToken => ("pypi-token", "`pypi-AgE` and 50 or more of base64url"),
            Kind::LlmKey => (
                "llm-key",
                "`sk-ant-`, `sk-proj-`, `sk-svcacct-`, `sk-admin-`, `sk-or-` and 20 or more of base64url; `sk-` and 32 or more letters and digits; `hf_` and 30; `gsk_`, `xai-`, `pplx-` and 40; `r8_` and 36; `nvapi-` and 40",
            ),
            Kind::AwsKey => (
                "aws-key",
                "`AKIA`, `ASIA` and exactly 16 capitals and digits; within 256 bytes of one, exactly 40 of base64 with a capital, a small letter and a digit among them; the value of `X-Amz-Signature=`",
            ),
            Kind::GcpKey => (
                "gcp-key",
                "`AIza` and 35 or more of base64url; `ya29.` and 20; `GOCSPX-` and 20; the value of `X-Goog-Signature=`. The key in a service account's file is a private-key",
            ),
            Kind::AzureKey => (
                "azure-key",
                "the value of `AccountKey` and `SharedAccessKey` where it looks made as a token does; of `sig=` in a query, 30 bytes or longer",
            ),
            Kind::PasswordHash => (
                "password-hash",
                "what crypt(3) and its kin write: `$1$`, `$5$`, `$6$`, `$y$`, `$gy$`, `$7$`, `$2a$`, `$2b$`, `$2y$`, `$apr1$`, `$argon2` and 20 or more",
            ),
            Kind::UrlPassword => ("url-password", "the password in `scheme://user:password@host`"),
            Kind::Authorization => (
                "authorization",
                "the credentials of `Authorization` and `Proxy-Authorization`; after `Bearer` wherever it stands, 8 bytes or longer with a letter and a digit",
            ),
            Kind::Cookie => (
                "cookie",
                "the value of `Cookie` and `Set-Cookie`, when it has the form `name=value`",
            ),
            Kind::ApiKey => (
                "api-key",
                "the value of `api_key` and of what ends so, as `X-Api-Key` does; of `access_key` where it looks made as a token does; with `_`, `-` or nothing between the words",
            ),
            Kind::Password => (
                "password",
                "the value of `password`, `passwd`, `passphrase` and of what ends so, as `DB_PASSWORD` does; of `pwd` where it is no path; of `…_pass` behind `=` where it is no number",
            ),
            Kind::Secret => (
                "secret",
                "the value of `secret`, `secret_key`, `secret_key_base`, `secret_access_key` and of what ends so, as `client_secret` does; of `private_key` where it is no path",
            ),
            Kind::Token => (
                "token",
                "the value of `token` and of what ends so, as `access_token` does: 8 bytes or longer with a letter and a digit, or 24 letters or more (16 where it is assigned or quoted)",
            ),
        }
    }
}

/// How a mark begins.
pub(crate) const MARK: &str = "[redacted:";

/// The length of the mark that `bytes` begin with.
pub(crate) fn mark_len(bytes: &[u8]) -> Option<usize> {
    let name = bytes.strip_prefix(MARK.as_bytes())?;
    let len = name.iter().take(24).position(|&byte| byte == b']')?;
    name[..len]
        .iter()
        .all(|&byte| byte.is_ascii_lowercase() || byte == b'-')
        .then_some(MARK.len() + len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_recognised_and_nothing_else_is() {
        for kind in Kind::ALL {
            assert_eq!(mark_len(kind.mark().as_bytes()), Some(kind.mark().len()));
        }
        for other in ["[redacted]", "[redacted:", "[redacted:A]", "redacted:token]", ""] {
            assert_eq!(mark_len(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn all_kinds_stand_in_their_order_with_names_of_their_own() {
        assert!(Kind::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
