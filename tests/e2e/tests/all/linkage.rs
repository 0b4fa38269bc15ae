//! What runs on a target needs no library and no loader of the target's.

use std::path::Path;

use crate::STACK;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// What may be done with a segment.
const READ_AND_RUN: u32 = 5;
const READ_AND_WRITE: u32 = 6;

/// The types of a 64-bit little-endian ELF file's program headers, each with what may be done there.
fn segments_and_rights(path: &Path) -> Vec<(u32, u32)> {
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
        .map(|n| [0, 4].map(|field| u32::try_from(number(table + n * size + field, 4)).unwrap()))
        .map(|[kind, rights]| (kind, rights))
        .collect()
}

fn segments(path: &Path) -> Vec<u32> {
    segments_and_rights(path).into_iter().map(|(kind, _)| kind).collect()
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

/// There is no C library in it, so nothing that it would prepare: no memory to fill in, no stack that can be run.
#[test]
fn inspect_has_nothing_to_prepare_at_its_start() {
    let inspect = STACK.world().target_package().unwrap().join("inspect");
    assert_eq!(
        segments_and_rights(&inspect),
        [(PT_LOAD, READ_AND_RUN), (PT_GNU_STACK, READ_AND_WRITE)]
    );
}
