//! Starts `inspect`. Shipped, it brings its own start and needs no C library (`start.rs`); else it is an ordinary program.

#![cfg_attr(no_c_library, no_std, no_main)]

#[cfg(no_c_library)]
mod start;

#[cfg(not(no_c_library))]
fn main() -> std::process::ExitCode {
    use rustix::stdio::{stderr, stdin, stdout};
    use rustix::time::{ClockId, clock_gettime};

    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let mut block = Box::new([0; writ_inspect::BLOCK]);
    let mut host = writ_inspect::Host {
        stdin: stdin(),
        stdout: stdout(),
        stderr: stderr(),
        now: || clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default(),
        block: &mut block,
    };
    writ_inspect::answer(args.iter().map(|arg| arg.as_encoded_bytes()), &mut host).into()
}
