//! Time grows with the input and not faster, whatever the input is.

#![allow(clippy::unwrap_used, missing_docs)]

use inputs::used_ms;

mod inputs;

/// REQ-REDACT-6. Four times the input takes about four times as long; where something is read again and again it is
/// sixteen.
#[test]
fn hostile_inputs_take_time_in_proportion_to_their_length() {
    drop(redact::redact(b"the automaton is built once"));
    let mut slow = Vec::new();
    for (name, part) in inputs::all() {
        let (short, long) = (inputs::repeated(&part, 256 << 10), inputs::repeated(&part, 1 << 20));
        let ms = |input: &[u8]| used_ms(3, || drop(redact::redact(input)));
        // A busy machine has slow caches at times; what is quadratic is slow each time.
        if (0..5).all(|_| ms(&long) / ms(&short) > 8.0) {
            slow.push(name);
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
#[ignore = "a figure of a release build: cargo test --release -p writ-redact --test linear -- --ignored"]
fn one_mebibyte_takes_at_most_20_ms() {
    drop(redact::redact(b"the automaton is built once"));
    for (name, part) in inputs::all() {
        let input = inputs::repeated(&part, 1 << 20);
        let ms = used_ms(5, || drop(redact::redact(&input)));
        assert!(ms <= 20.0, "{name}: {ms:.1} ms");
    }
}
