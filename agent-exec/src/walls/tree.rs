//! The table of calls as one program for the kernel's filter (seccomp(2), classic BPF).
//!
//! From its number to what becomes of a call is a function of steps: neighbours mostly share their answer. A balanced tree of
//! comparisons finds the step, and every step of one answer leads to the same instructions. The kernel pays for a filter by
//! its length when it translates it, and by its depth when it asks it about every number in advance; a list of comparisons
//! would be long and deep.
//!
//! It is written from its end: jumps go forward only, so what an instruction leads to is there when it is written.

use std::collections::BTreeMap;
use std::mem::offset_of;

use libc::seccomp_data;
use seccompiler::{BpfProgram, SeccompAction, sock_filter};

use super::calls::{Call, When};
use super::{OWN_GROUP, OWN_PROCESS};

/// The architecture as the kernel tells it to a filter: AUDIT_ARCH_* of linux/audit.h. There is no third one.
#[cfg(target_arch = "x86_64")]
pub(super) const MACHINE: u32 = 0xc000_0000 | libc::EM_X86_64 as u32;
#[cfg(target_arch = "aarch64")]
pub(super) const MACHINE: u32 = 0xc000_0000 | libc::EM_AARCH64 as u32;

/// What the kernel takes at most: BPF_MAXINSNS.
const LONGEST: usize = 4096;

/// The instructions that are used: load 32 bits of what is known of the call; return; jump; compare with a constant and jump.
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;

/// Lays out these rows. What is in none of them fails with EPERM, which programs know how to report; another architecture's
/// numbers mean other calls, and end the process.
///
/// # Errors
/// The table is too large for a filter.
pub(super) fn lay_out<'a>(rows: impl Iterator<Item = &'a Call>) -> Result<BpfProgram, &'static str> {
    let mut tree = Tree::new();
    let mut checks: Vec<(When, Place)> = Vec::new();
    // Each place holds from its number up to the next one's.
    let mut steps = BTreeMap::from([(0, REFUSE)]);
    for row in rows {
        let number = u32::try_from(row.number).map_err(|_| "no system call has such a number")?;
        let place = match checks.iter().find(|(when, _)| *when == row.when) {
            Some((_, place)) => *place,
            None => {
                let place = tree.check(row.when)?;
                checks.push((row.when, place));
                place
            }
        };
        steps.insert(number, place);
        if let Some(next) = number.checked_add(1) {
            steps.entry(next).or_insert(REFUSE);
        }
    }
    let mut steps: Vec<(u32, Place)> = steps.into_iter().collect();
    steps.dedup_by_key(|(_, place)| *place);
    let found = tree.find(&steps)?;
    let ours = tree.load(offset_of!(seccomp_data, nr), found);
    let foreign = tree.answer(SeccompAction::KillProcess);
    let compared = tree.compare(EQUAL, MACHINE, ours, foreign)?;
    tree.load(offset_of!(seccomp_data, arch), compared);
    tree.finish()
}

/// An instruction, counted from the end of the program.
type Place = usize;

/// Every program ends with the three answers.
const REFUSE: Place = 0;
const ABSENT: Place = 1;
const ALLOW: Place = 2;

/// A program from its end.
struct Tree(Vec<sock_filter>);

impl Tree {
    fn new() -> Self {
        let mut tree = Self(Vec::new());
        tree.answer(SeccompAction::Errno(libc::EPERM as u32));
        tree.answer(SeccompAction::Errno(libc::ENOSYS as u32));
        tree.answer(SeccompAction::Allow);
        tree
    }

    fn put(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Place {
        self.0.push(sock_filter { code, jt, jf, k });
        self.0.len() - 1
    }

    /// How many instructions lie between the next one to be written and this one.
    fn skipped(&self, place: Place) -> usize {
        self.0.len() - 1 - place
    }

    fn answer(&mut self, action: SeccompAction) -> Place {
        self.put(RETURN, action.into(), 0, 0)
    }

    fn jump(&mut self, to: Place) -> Place {
        self.put(JUMP, self.skipped(to) as u32, 0, 0)
    }

    /// A load goes on with what is written behind it.
    fn load(&mut self, offset: usize, then: Place) -> Place {
        if self.skipped(then) > 0 {
            self.jump(then);
        }
        self.put(LOAD, offset as u32, 0, 0)
    }

    /// Compares what was loaded last. These jumps have 8 bits; what is farther is reached over a jump that has 32.
    fn compare(&mut self, how: u16, with: u32, yes: Place, no: Place) -> Result<Place, &'static str> {
        let near = |tree: &mut Self, place| {
            // Of the two branches the second may still put a jump between the first and its place.
            if tree.skipped(place) < usize::from(u8::MAX) {
                place
            } else {
                tree.jump(place)
            }
        };
        let (yes, no) = (near(self, yes), near(self, no));
        let bits = |place| u8::try_from(self.skipped(place)).map_err(|_| "a jump is too far");
        let (yes, no) = (bits(yes)?, bits(no)?);
        Ok(self.put(how, with, yes, no))
    }

    /// Where the place of a number is found among these steps.
    fn find(&mut self, steps: &[(u32, Place)]) -> Result<Place, &'static str> {
        match *steps {
            [(_, place)] => Ok(place),
            // One number that differs from both sides.
            [(_, around), (number, within), (next, after)] if around == after && next == number + 1 => {
                self.compare(EQUAL, number, within, around)
            }
            _ => {
                let (below, above) = steps.split_at(steps.len() / 2);
                let (from, above) = (above[0].0, self.find(above)?);
                let below = self.find(below)?;
                self.compare(AT_LEAST, from, above, below)
            }
        }
    }

    /// Where a condition is looked at. The number is not known any more from there on.
    fn check(&mut self, when: When) -> Result<Place, &'static str> {
        match when {
            When::Always => Ok(ALLOW),
            When::Absent => Ok(ABSENT),
            When::OneOf(argument, values) => self.one_of(argument, values),
            When::OwnProcess => self.one_of(0, &[OWN_PROCESS]),
            When::OwnSignal => self.one_of(0, &[OWN_PROCESS, OWN_GROUP, 0]),
            When::Without(argument, bits) => {
                let (low, high) = halves(argument);
                let compared = self.compare(ANY_BIT, bits as u32, REFUSE, ALLOW)?;
                let rest = self.load(low, compared);
                let compared = self.compare(ANY_BIT, (bits >> 32) as u32, REFUSE, rest)?;
                Ok(self.load(high, compared))
            }
        }
    }

    /// Compared as 32 bits, as the kernel's argument has them, whatever stands in the upper half of the register.
    fn one_of(&mut self, argument: u8, values: &[u32]) -> Result<Place, &'static str> {
        let mut compared = REFUSE;
        for value in values.iter().rev() {
            compared = self.compare(EQUAL, *value, ALLOW, compared)?;
        }
        Ok(self.load(halves(argument).0, compared))
    }

    fn finish(mut self) -> Result<BpfProgram, &'static str> {
        if self.0.len() > LONGEST {
            return Err("the filter is too long");
        }
        self.0.reverse();
        Ok(self.0)
    }
}

/// Where the lower and the upper 32 bits of an argument stand; both architectures are little endian.
fn halves(argument: u8) -> (usize, usize) {
    let low = offset_of!(seccomp_data, args) + size_of::<u64>() * usize::from(argument);
    (low, low + size_of::<u32>())
}
