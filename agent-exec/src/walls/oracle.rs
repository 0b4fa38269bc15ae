//! The tree against seccompiler's own compilation of the same table, which compares number after number: both are run here,
//! as the kernel runs them, and have to decide alike.
//!
//! seccompiler knows two answers a filter, so its allowlist lets through what is to fail with ENOSYS, and a second filter
//! says that. Of two filters the kernel takes the stricter answer.

use std::collections::BTreeSet;

use proptest::prelude::*;
use seccompiler::{
    BackendError, BpfProgramRef, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::calls::When;
use super::tree::{MACHINE, lay_out};
use super::*;

/// The second numbering of x86_64.
const X32: u32 = 0x4000_0000;

/// What a filter is told of a call, without the address that it came from, which none asks for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    machine: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Asked {
    /// 32 bits of the kernel's struct seccomp_data.
    fn word(&self, offset: u32) -> u32 {
        assert_eq!(offset % 4, 0, "the kernel takes no such load");
        match offset {
            0 => self.number,
            4 => self.machine,
            16.. => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) {
                    argument as u32
                } else {
                    (argument >> 32) as u32
                }
            }
            _ => panic!("nobody asks for the address"),
        }
    }
}

/// Runs a program as the kernel would, and refuses what the kernel refuses of those that are written here.
fn run(program: BpfProgramRef<'_>, asked: &Asked) -> u32 {
    assert!(program.len() <= 4096);
    let (mut at, mut word) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            0x20 => word = asked.word(k),
            0x54 => word &= k,
            0x05 => at += k as usize,
            0x15 => branch(word == k),
            0x25 => branch(word > k),
            0x35 => branch(word >= k),
            0x45 => branch(word & k != 0),
            0x06 => return k,
            _ => panic!("{code:#x} is written by nobody here"),
        }
    }
}

/// The stricter of all answers: the one whose action, as a signed number, is the least; of equals the first.
fn stacked(programs: &[BpfProgram], asked: &Asked) -> u32 {
    let answers = programs.iter().map(|program| run(program, asked));
    let action = |answer: &u32| (answer & 0xffff_0000) as i32;
    answers.min_by_key(action).unwrap()
}

/// seccompiler's programs of a table.
fn listed(rows: &[Call]) -> [BpfProgram; 2] {
    let compile = |rules, others, named| -> BpfProgram {
        let machine = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let filter = SeccompFilter::new(rules, others, named, machine).unwrap();
        filter.try_into().unwrap()
    };
    let allowed = rows.iter().map(|call| (call.number, rules(call.when).unwrap()));
    let absent = rows.iter().filter(|call| call.when == When::Absent);
    let absent = absent.map(|call| (call.number, Vec::new()));
    let errno = |number| SeccompAction::Errno(number as u32);
    [
        compile(allowed.collect(), errno(libc::EPERM), SeccompAction::Allow),
        compile(absent.collect(), SeccompAction::Allow, errno(libc::ENOSYS)),
    ]
}

/// The conditions of one row: none means always, several mean any of them.
fn rules(when: When) -> Result<Vec<SeccompRule>, BackendError> {
    let one =
        |argument, length, how, value| SeccompRule::new(vec![SeccompCondition::new(argument, length, how, value)?]);
    let equal = |argument, value: u32| one(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into());
    match when {
        When::Always | When::Absent => Ok(Vec::new()),
        When::OneOf(argument, values) => values.iter().map(|value| equal(argument, *value)).collect(),
        When::Without(argument, bits) => {
            let masked = SeccompCmpOp::MaskedEq(bits);
            Ok(vec![one(argument, SeccompCmpArgLen::Qword, masked, 0)?])
        }
        When::OwnProcess => Ok(vec![equal(0, OWN_PROCESS)?]),
        When::OwnSignal => [OWN_PROCESS, OWN_GROUP, 0]
            .into_iter()
            .map(|value| equal(0, value))
            .collect(),
    }
}

/// Both compilations of a table.
struct Both {
    tree: BpfProgram,
    list: [BpfProgram; 2],
}

impl Both {
    fn of(rows: &[Call]) -> Self {
        Self {
            tree: lay_out(rows.iter()).unwrap(),
            list: listed(rows),
        }
    }

    /// What both say.
    #[track_caller]
    fn say(&self, asked: Asked) -> u32 {
        let said = run(&self.tree, &asked);
        assert_eq!(said, stacked(&self.list, &asked), "{asked:x?}");
        said
    }
}

/// Arguments that may make a difference to any of these rows: every constant and what is next to it, alone and with other
/// bits in the upper half; every single bit.
fn arguments(rows: &[Call]) -> BTreeSet<u64> {
    let constants = rows.iter().flat_map(|call| match call.when {
        When::OneOf(_, values) => values.iter().map(|value| u64::from(*value)).collect(),
        When::Without(_, bits) => vec![bits, bits & 0xffff_ffff, bits >> 32],
        _ => vec![OWN_PROCESS.into(), OWN_GROUP.into()],
    });
    let near = constants.flat_map(|value| [value.wrapping_sub(1), value, value.wrapping_add(1), !value]);
    let near: Vec<u64> = near.chain([0, 1, u64::MAX]).collect();
    let above = near
        .iter()
        .flat_map(|value| [*value, value | 1 << 32, value | 0xffff_ffff << 32]);
    above.chain((0..64).map(|bit| 1 << bit)).collect()
}

/// Numbers that may make a difference, and all small ones.
fn numbers(rows: &[Call]) -> BTreeSet<u32> {
    let named = rows.iter().map(|call| call.number as u32);
    let near = named.flat_map(|number| [number.wrapping_sub(1), number, number.wrapping_add(1)]);
    let small: Vec<u32> = (0..1024).chain(near).collect();
    let edges = [1 << 31, X32 - 1, u32::MAX - 1, u32::MAX];
    let x32 = small
        .iter()
        .flat_map(|number| [*number, number | X32, number | 1 << 31]);
    x32.chain(edges).collect()
}

/// Every number with every argument, one after the other, on this architecture.
fn decide_alike(rows: &[Call]) {
    let both = Both::of(rows);
    let arguments = arguments(rows);
    let conditional: BTreeSet<u32> = rows
        .iter()
        .filter(|call| !matches!(call.when, When::Always | When::Absent))
        .flat_map(|call| [call.number as u32 - 1, call.number as u32, call.number as u32 + 1])
        .collect();
    for number in numbers(rows) {
        let ask = |arguments| Asked {
            machine: MACHINE,
            number,
            arguments,
        };
        both.say(ask([0; 6]));
        both.say(ask([u64::MAX; 6]));
        let each = if conditional.contains(&number) {
            arguments.len()
        } else {
            0
        };
        for (value, at) in arguments
            .iter()
            .take(each)
            .flat_map(|value| (0..6).map(move |at| (*value, at)))
        {
            for others in [0, u64::MAX] {
                let mut six = [others; 6];
                six[at] = value;
                both.say(ask(six));
            }
        }
    }
}

fn table(profile: Profile) -> Vec<Call> {
    rows(profile).copied().collect()
}

const PROFILES: [Profile; 2] = [Profile::Reader, Profile::Tool];

#[test]
fn every_number_with_every_argument_that_matters_is_decided_as_by_the_list() {
    for profile in PROFILES {
        decide_alike(&table(profile));
    }
}

#[test]
fn every_other_architecture_ends_the_process() {
    // x86, arm, aarch64, x86_64, riscv64, s390x, big endian aarch64, and none.
    let machines = [
        0x4000_0003,
        0x4000_0028,
        0xc000_00b7,
        0xc000_003e,
        0xc000_00f3,
        0x8000_0016,
        0x8000_00b7,
        0,
        1,
        u32::MAX,
    ];
    for profile in PROFILES {
        let rows = table(profile);
        let both = Both::of(&rows);
        for machine in machines.into_iter().filter(|machine| *machine != MACHINE) {
            for number in numbers(&rows) {
                let said = both.say(Asked {
                    machine,
                    number,
                    arguments: [0; 6],
                });
                assert_eq!(said, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }
    }
}

/// Not only alike, but right: one of each kind, with the answers that docs/walls.md promises.
#[test]
fn the_answers_are_those_of_the_page() {
    let allowed = libc::SECCOMP_RET_ALLOW;
    let errno = |number: i32| libc::SECCOMP_RET_ERRNO | number as u32;
    let (not_permitted, absent) = (errno(libc::EPERM), errno(libc::ENOSYS));
    let own = u64::from(OWN_PROCESS);
    let expected = [
        (libc::SYS_read, 0, allowed),
        (libc::SYS_clone3, 0, absent),
        (libc::SYS_ptrace, 0, not_permitted),
        (libc::SYS_read | i64::from(X32), 0, not_permitted),
        (libc::SYS_clone3 | i64::from(X32), 0, not_permitted),
        (i64::from(u32::MAX), 0, not_permitted),
        (libc::SYS_kill, own, allowed),
        (libc::SYS_kill, OWN_GROUP.into(), allowed),
        (libc::SYS_kill, 0, allowed),
        (libc::SYS_kill, 1, not_permitted),
        (libc::SYS_tgkill, own, allowed),
        (libc::SYS_tgkill, 0, not_permitted),
        (libc::SYS_execveat, PROGRAM_FD as u64, allowed),
        (libc::SYS_execveat, 3, not_permitted),
        (libc::SYS_clone, 17, allowed),
        (libc::SYS_clone, 0x1000_0000, not_permitted),
        (libc::SYS_socket, 2, allowed),
        (libc::SYS_socket, 16, not_permitted),
    ];
    let both = Both::of(&table(Profile::Tool));
    for (number, first, answer) in expected {
        let asked = Asked {
            machine: MACHINE,
            number: number as u32,
            arguments: [first, 0, 0, 0, 0, 0],
        };
        assert_eq!(both.say(asked), answer, "{asked:x?}");
    }
}

/// What the tree is there for: the kernel takes the longer over a filter the longer it is.
#[test]
fn a_tree_is_less_than_half_as_long_as_the_list() {
    for profile in PROFILES {
        let both = Both::of(&table(profile));
        let list: usize = both.list.iter().map(Vec::len).sum();
        println!(
            "{}: {} instructions, the list {list}",
            profile.as_str(),
            both.tree.len()
        );
        assert!(both.tree.len() * 2 < list, "{} of {list}", both.tree.len());
    }
}

/// A condition that nothing meets: the tree refuses. It stands in no table, and seccompiler would take it for none.
#[test]
fn one_of_nothing_is_never() {
    let mut row = *rows(Profile::Tool).next().unwrap();
    row.when = When::OneOf(0, &[]);
    let program = lay_out([row].iter()).unwrap();
    for argument in [0, 1, u64::MAX] {
        let asked = Asked {
            machine: MACHINE,
            number: row.number as u32,
            arguments: [argument; 6],
        };
        assert_eq!(run(&program, &asked), libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    }
}

#[test]
fn a_table_that_no_filter_can_hold_is_refused() {
    let row = |number| Call {
        number,
        ..*rows(Profile::Tool).next().unwrap()
    };
    let every_second = |count: i64| -> Vec<Call> { (0..count).map(|number| row(number * 2)).collect() };
    // Out of reach of a conditional jump from one end to the other, and yet a filter.
    decide_alike(&every_second(600));
    assert_eq!(lay_out(every_second(5000).iter()), Err("the filter is too long"));
    assert_eq!(lay_out([row(-1)].iter()), Err("no system call has such a number"));
}

/// Any condition. The lists are constants, as in the table.
fn when() -> impl Strategy<Value = When> {
    let lists: [&'static [u32]; 4] = [
        &[0],
        &[7, 3, u32::MAX],
        &[1, 2, 10],
        &[0x5401, 0x5413, 0x8000_0000, 5, 6],
    ];
    prop_oneof![
        6 => Just(When::Always),
        1 => Just(When::Absent),
        1 => Just(When::OwnProcess),
        1 => Just(When::OwnSignal),
        2 => (0..6_u8, prop::sample::select(lists.to_vec())).prop_map(|(argument, list)| When::OneOf(argument, list)),
        2 => (0..6_u8, any::<u64>()).prop_map(|(argument, bits)| When::Without(argument, bits)),
    ]
}

/// Any table: dense, thin, with the largest numbers, and so large that jumps have to be passed on.
fn any_table() -> impl Strategy<Value = Vec<Call>> {
    let number = prop_oneof![4 => 0..60_u32, 4 => 0..1000_u32, 1 => any::<u32>(), 1 => u32::MAX - 3..=u32::MAX];
    prop::collection::btree_map(number, when(), 0..250).prop_map(|table| {
        let row = |(number, when)| Call {
            name: "",
            number: i64::from(number),
            profile: Profile::Reader,
            when,
            why: "",
        };
        table.into_iter().map(row).collect()
    })
}

/// Any call, mostly of this architecture and with a number that is there.
fn any_call() -> impl Strategy<Value = Asked> {
    let machine = prop_oneof![9 => Just(MACHINE), 1 => any::<u32>()];
    let number = prop_oneof![3 => 0..512_u32, 1 => any::<u32>()];
    let argument = prop_oneof![0..16_u64, any::<u32>().prop_map(u64::from), any::<u64>()];
    (machine, number, prop::array::uniform6(argument)).prop_map(|(machine, number, arguments)| Asked {
        machine,
        number,
        arguments,
    })
}

proptest! {
    /// Of the tables that there are, whatever is asked.
    #[test]
    fn any_call_is_decided_as_by_the_list(
        asked in prop::collection::vec(any_call(), 256),
        profile in prop::sample::select(&PROFILES),
    ) {
        let both = Both::of(&table(profile));
        for asked in asked {
            both.say(asked);
        }
    }

    /// And of any other.
    #[test]
    fn any_table_is_decided_as_by_the_list(
        rows in any_table(),
        number in any::<u32>(),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
        random in prop::array::uniform6(any::<u64>()),
    ) {
        let both = Both::of(&rows);
        let values: Vec<u64> = arguments(&rows).into_iter().collect();
        for number in numbers(&rows).into_iter().filter(|number| *number < 64 || *number > 1000).chain([number]) {
            both.say(Asked { machine: MACHINE, number, arguments: random });
        }
        for call in &rows {
            for (pick, at) in &picks {
                let mut arguments = random;
                arguments[at.index(6)] = values[pick.index(values.len())];
                both.say(Asked { machine: MACHINE, number: call.number as u32, arguments });
            }
        }
    }
}
