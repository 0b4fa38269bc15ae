//! The start and the end of the program without a C library: all of it that is unsafe.
//!
//! The kernel starts a program at `_start` with its arguments on the stack (execve(2), and the ABI of the architecture)
//! and nothing else. Nothing else is needed here: there are no threads, so no thread-local storage; no heap; and
//! `link.ld` refuses what would have to be prepared. What is left are five things: the arguments, one signal, two system
//! calls, memory for the library, and the functions that a compiler expects to find wherever it compiles for.

#![allow(unsafe_code)]

use core::arch::{asm, naked_asm};
use core::ffi::{CStr, c_char};
use core::panic::PanicInfo;
use core::time::Duration;

use rustix::fd::BorrowedFd;
use writ_inspect::{BLOCK, Host, answer};

#[cfg(not(panic = "abort"))]
compile_error!("without a C library there is nothing that unwinds: build with the profile agent");

/// Where the kernel starts the program: the stack, aligned to 16 bytes, begins with the number of arguments. Below it is
/// room for what the library wants, and below that for everything else. Pages of it exist once they are touched.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "xor ebp, ebp",
        "mov rdi, rsp",
        "sub rsp, {block}",
        "mov rsi, rsp",
        "call {begin}",
        "ud2",
        block = const BLOCK,
        begin = sym begin,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, sp",
        "sub sp, sp, {block}",
        "mov x1, sp",
        "bl {begin}",
        "brk #1",
        block = const BLOCK,
        begin = sym begin,
    );
}

/// Runs the program. Called once, by `_start`, with the stack as it was found and memory that nobody else has.
unsafe extern "C" fn begin(stack: *const *const c_char, memory: *mut [u8; BLOCK]) -> ! {
    ignore_broken_pipes();
    // SAFETY: `stack` is the number of arguments, then a pointer to each, then null, and stays until the process ends.
    let args = unsafe { core::slice::from_raw_parts(stack.add(1), stack.cast::<usize>().read()) };
    // SAFETY: each is a string that ends with a null byte, stays as long, and is written by nobody.
    let args = args.iter().map(|arg| unsafe { CStr::from_ptr(*arg) }.to_bytes());
    // SAFETY: nothing here closes 0, 1 or 2. Where whoever started the program left one closed, its use is an error of the
    // system's, and what is opened instead is closed again before anything is told.
    let [stdin, stdout, stderr] = unsafe { [0, 1, 2].map(|fd| BorrowedFd::borrow_raw(fd)) };
    // SAFETY: the part of the stack that `_start` left free, and that nothing was in before: the kernel's pages are zeros.
    let memory = unsafe { &mut *memory };
    let mut host = Host {
        stdin,
        stdout,
        stderr,
        now,
        block: memory,
    };
    exit(answer(args.skip(1), &mut host))
}

/// Where a defect of the program ends. Where it is, is left out: every place would be text in the file.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: as in `begin`.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _gone = rustix::io::write(stderr, b"inspect: a defect of its own\n");
    exit(1)
}

/// A system call.
///
/// # Safety
/// As the call's man page asks for: pointers among the arguments are good for what it reads and writes.
unsafe fn call(number: usize, args: [usize; 4]) -> usize {
    let [a, b, c, d] = args;
    let result;
    // SAFETY: the registers of the architecture's system calls, syscall(2). They may change memory, and never the stack.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack, preserves_flags));
    }
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack, preserves_flags));
    }
    result
}

/// The numbers of the three calls that rustix does not offer to programs.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const RT_SIGACTION: usize = 13;
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const RT_SIGACTION: usize = 134;
    pub(super) const CLOCK_GETTIME: usize = 113;
    pub(super) const EXIT_GROUP: usize = 94;
}

/// Lets writing to a pipe that nobody reads any more be an error, which has a code, and not a signal.
fn ignore_broken_pipes() {
    const SIGPIPE: usize = 13;
    const SIG_IGN: usize = 1;
    /// A signal set, in bytes.
    const SET: usize = 8;
    // A handler, flags, what restores, a mask.
    let action = [SIG_IGN, 0, 0, 0];
    // SAFETY: `action` is as long as the kernel's struct, which is only read. No handler is installed.
    unsafe {
        call(
            number::RT_SIGACTION,
            [SIGPIPE, (&raw const action).expose_provenance(), 0, SET],
        )
    };
}

/// The time on a clock that nobody sets.
fn now() -> Duration {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    // SAFETY: `time` is as long as the kernel's struct of seconds and nanoseconds, and is written while it is borrowed.
    unsafe {
        call(
            number::CLOCK_GETTIME,
            [CLOCK_MONOTONIC, (&raw mut time).expose_provenance(), 0, 0],
        )
    };
    Duration::new(time[0], time[1] as u32)
}

/// Ends the process.
fn exit(code: u8) -> ! {
    loop {
        // SAFETY: takes no pointers, and does not come back.
        unsafe { call(number::EXIT_GROUP, [usize::from(code), 0, 0, 0]) };
    }
}

// What compilers take for granted, with the meaning of the C library's functions of the same names. In assembly, because
// a compiler that finds such a loop in Rust makes it a call of itself. Little is copied here, and nothing that was read from a file:
// short is better than clever.

/// memcpy(3).
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret");
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x3, x0",
        "2: subs x2, x2, #16",
        "b.lo 3f",
        "ldp x4, x5, [x1], #16",
        "stp x4, x5, [x3], #16",
        "b 2b",
        "3: adds x2, x2, #16",
        "b.eq 5f",
        "4: ldrb w4, [x1], #1",
        "strb w4, [x3], #1",
        "subs x2, x2, #1",
        "b.ne 4b",
        "5: ret",
    );
}

/// memmove(3): forwards where that does not write what is yet to be read, else from the end.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "mov rcx, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        "2: lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "sub x3, x0, x1",
        "cmp x3, x2",
        "b.hs {memcpy}",
        "2: cbz x2, 3f",
        "sub x2, x2, #1",
        "ldrb w4, [x1, x2]",
        "strb w4, [x0, x2]",
        "b 2b",
        "3: ret",
        memcpy = sym memcpy,
    );
}

/// memset(3).
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "mov r8, rdi",
        "mov eax, esi",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r8",
        "ret"
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x3, x0",
        "and x1, x1, #0xff",
        "mov x4, #0x0101010101010101",
        "mul x4, x1, x4",
        "2: subs x2, x2, #16",
        "b.lo 3f",
        "stp x4, x4, [x3], #16",
        "b 2b",
        "3: adds x2, x2, #16",
        "b.eq 5f",
        "4: strb w1, [x3], #1",
        "subs x2, x2, #1",
        "b.ne 4b",
        "5: ret",
    );
}

/// memcmp(3), of a few bytes: the names of verbs.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "xor ecx, ecx",
        "2: xor eax, eax",
        "cmp rcx, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 2b",
        "3: ret",
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x3, x0",
        "2: mov w0, wzr",
        "cbz x2, 3f",
        "ldrb w0, [x3], #1",
        "ldrb w4, [x1], #1",
        "sub x2, x2, #1",
        "subs w0, w0, w4",
        "b.eq 2b",
        "3: ret",
    );
}

/// bcmp(3): memcmp by another name, which compilers prefer where only equality is asked for.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("b {memcmp}", memcmp = sym memcmp);
}

/// strlen(3), of arguments.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "mov rax, -1",
        "2: inc rax",
        "cmp byte ptr [rdi + rax], 0",
        "jne 2b",
        "ret"
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x1, x0",
        "2: ldrb w2, [x1], #1",
        "cbnz w2, 2b",
        "sub x0, x1, x0",
        "sub x0, x0, #1",
        "ret"
    );
}
