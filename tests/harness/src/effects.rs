//! A change that can be counted: each run adds one line to a file on its target.

use anyhow::Result;

use crate::stack::Options;
use crate::target::Target;

/// The action's name.
pub const ACTION: &str = "count_effect";

/// Where its lines go, inside a target.
const FILE: &str = "/tmp/effects";

/// The same action with less time, for tests in which nobody answers: a relay is patient for as long as a program may take.
pub const QUICK: &str = "count_quickly";

/// A stack in which everybody may call both.
pub fn options() -> Options {
    let may =
        |action: &str| format!("@id(\"{action}\")\npermit (principal, action == Action::\"{action}\", resource);\n");
    Options {
        actions: vec![
            (ACTION, manifest()),
            (
                QUICK,
                manifest()
                    .replace(ACTION, QUICK)
                    .replace("timeout_ms = 30000", "timeout_ms = 10000"),
            ),
        ],
        policy: Some([crate::control::POLICY, &may(ACTION), &may(QUICK)].concat()),
        ..Options::default()
    }
}

/// Its manifest. `word` is what is written; `before` and `after` are gates at which it waits around that: names that a test
/// gives, or nothing. What it prints comes last.
pub fn manifest() -> String {
    let program = format!(
        "my ($before, $word, $after) = @ARGV; $| = 1; \
         sub gate {{ my ($gate) = @_; return if $gate eq ''; select undef, undef, undef, 0.01 until -e qq(/tmp/$gate) }} \
         gate($before); open my $file, '>>', '{FILE}' or die; syswrite $file, qq($word\\n); close $file; \
         gate($after); print qq(done $word\\n)"
    );
    let program: String = program.bytes().map(|byte| format!("{byte:02x}")).collect();
    let text = "{ type = \"string\", maxLength = 100, default = \"\" }";
    format!(
        "name = \"{ACTION}\"\ntitle = \"Count an effect\"\ndescription = \"Adds one line to a file.\"\nrisk = \"change\"\n\
         timeout_ms = 30000\n[args]\n\
         properties.word = {{ type = \"string\", maxLength = 100, default = \"one\" }}\n\
         properties.before = {text}\nproperties.after = {text}\n\
         [exec]\nprogram = \"/usr/bin/perl\"\n\
         argv = [\"-e\", \"eval pack 'H*', '{program}'; die $@ if $@\", \"{{before}}\", \"{{word}}\", \"{{after}}\"]\n\
         [sandbox]\nprofile = \"tool\"\n"
    )
}

/// Opens a gate on a target: whatever waits there goes on, and so does whatever comes later.
pub fn open(target: &Target, gate: &str) -> Result<()> {
    target.root().file(&format!("tmp/{gate}"), 0o644, "")
}

/// What was done on a target, in order.
pub fn all(target: &Target) -> Result<Vec<String>> {
    match std::fs::read_to_string(target.root().at(FILE)) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// How often a word was written.
pub fn count(target: &Target, word: &str) -> Result<usize> {
    Ok(all(target)?.iter().filter(|line| *line == word).count())
}
