//! A change that can be counted: each run adds one line to a file on its target.

use anyhow::Result;

use crate::stack::Options;
use crate::target::Target;

/// The action's name.
pub const ACTION: &str = "count_effect";

/// Where its lines go, inside a target.
const FILE: &str = "/tmp/effects";

/// The same action with little time, for tests in which nobody answers.
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
                    .replace("timeout_ms = 20000", "timeout_ms = 1000"),
            ),
        ],
        policy: Some([crate::control::POLICY, &may(ACTION), &may(QUICK)].concat()),
        ..Options::default()
    }
}

/// Its manifest. `word` is what is written, `before_ms` and `after_ms` how long it does nothing around that. What it prints
/// comes last.
pub fn manifest() -> String {
    let program = format!(
        "my ($before, $word, $after) = @ARGV; $| = 1; select undef, undef, undef, $before / 1000; \
         open my $file, '>>', '{FILE}' or die; syswrite $file, qq($word\\n); close $file; \
         select undef, undef, undef, $after / 1000; print qq(done $word\\n)"
    );
    let program: String = program.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "name = \"{ACTION}\"\ntitle = \"Count an effect\"\ndescription = \"Adds one line to a file.\"\nrisk = \"change\"\n\
         timeout_ms = 20000\n[args]\n\
         properties.word = {{ type = \"string\", maxLength = 100, default = \"one\" }}\n\
         properties.before_ms = {{ type = \"integer\", minimum = 0, maximum = 10000, default = 0 }}\n\
         properties.after_ms = {{ type = \"integer\", minimum = 0, maximum = 10000, default = 0 }}\n\
         [exec]\nprogram = \"/usr/bin/perl\"\n\
         argv = [\"-e\", \"eval pack 'H*', '{program}'; die $@ if $@\", \"{{before_ms}}\", \"{{word}}\", \"{{after_ms}}\"]\n\
         [sandbox]\nprofile = \"tool\"\n"
    )
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
