//! What runs on a target needs no library and no loader of the target's.

use std::path::Path;

use crate::STACK;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// The types of a 64-bit little-endian ELF file's program headers.
fn segments(path: &Path) -> Vec<u32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(
        bytes[..6],
        *b"\x7fELF\x02\x01",
        "{}: 64-bit, little-endian",
        path.display()
    );
    let number = |at: usize, size: usize| {
        let field = bytes[at..at + size].iter().rev();
        field.fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count)
        .map(|n| u32::try_from(number(table + n * size, 4)).unwrap())
        .collect()
}

#[test]
fn agent_exec_and_inspect_are_static() {
    let package = STACK.world().target_package().unwrap();
    for program in ["agent-exec", "inspect"] {
        let segments = segments(&package.join(program));
        assert!(segments.contains(&PT_LOAD), "{program}: {segments:?}");
        assert!(!segments.contains(&PT_INTERP), "{program} wants an interpreter");
    }
    // What is linked in the usual way has one: the question is the right one.
    let relay = segments(&STACK.world().program("writ-relay").unwrap());
    assert!(relay.contains(&PT_INTERP) && relay.contains(&PT_DYNAMIC), "{relay:?}");
}
