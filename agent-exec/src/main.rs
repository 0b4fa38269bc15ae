//! The ForceCommand of a target. It has no verbs and no options; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_exec::main()
}
