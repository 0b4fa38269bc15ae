//! How quick it is: `cargo run --release -p writ-redact --example redact_speed [MEBIBYTES]`.
//!
//! Prints what the first use takes (it builds the automaton) and, for ordinary and for hostile inputs, the least time of
//! five runs for so many MiB and for twice as many.

#![allow(clippy::unwrap_used, missing_docs)]

use inputs::used_ms;

#[path = "../tests/inputs/mod.rs"]
mod inputs;

fn main() {
    let mebibytes: usize = std::env::args().nth(1).map_or(1, |text| text.parse().unwrap());
    let first = used_ms(1, || assert_eq!(redact::redact(b"first").count, 0));
    println!("first use {first:.2} ms");
    println!(
        "{:<26} {:>9} {:>9} {:>6} {:>8}",
        "input", "once ms", "twice ms", "ratio", "secrets"
    );
    for (name, part) in inputs::all() {
        let once = inputs::repeated(&part, mebibytes << 20);
        let twice = inputs::repeated(&part, mebibytes << 21);
        let ms = |input: &[u8]| used_ms(5, || drop(redact::redact(input)));
        let (first, second) = (ms(&once), ms(&twice));
        let count = redact::redact(&once).count;
        println!(
            "{name:<26} {first:>9.2} {second:>9.2} {:>6.2} {count:>8}",
            second / first
        );
    }
}
