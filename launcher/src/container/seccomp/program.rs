//! A filter as classic BPF (the kernel's seccomp_filter.rst): a binary search for the range of
//! numbers that the call is in, and at each leaf what becomes of it.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, TargetArch, sock_filter};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It goes on.
    Allow,
    /// It fails with this error.
    Errno(u16),
    /// It goes on unless its first argument has any of these bits.
    UnlessAnyBit(u32),
    /// It goes on unless its first argument is this.
    Unless(u32),
    /// It goes on if its first argument is one of these.
    IfOneOf(&'static [u32]),
}

/// Everything that has no rule.
const REFUSE: Action = Action::Errno(libc::EPERM as u16);

// Offsets in `struct seccomp_data`; the machines there are lists for are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_LOW: u32 = 16;
const ARGUMENT_HIGH: u32 = 20;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The program for `rules`. Calls without a rule are `EPERM`; those of another architecture kill.
pub(super) fn compile(arch: TargetArch, rules: &BTreeMap<u32, Action>) -> BpfProgram {
    // Where each run of numbers with one action begins.
    let mut runs: Vec<(u32, Action)> = vec![(0, REFUSE)];
    let mut begin = |from: u32, action: Action| {
        // An empty run: what was to follow the number before.
        runs.pop_if(|last| last.0 == from);
        if runs.last().is_none_or(|last| last.1 != action) {
            runs.push((from, action));
        }
    };
    for (number, action) in rules {
        begin(*number, *action);
        begin(number.saturating_add(1), REFUSE);
    }
    let mut program = vec![
        code(LOAD, 0, 0, ARCH),
        code(IF_EQUAL, 1, 0, audit_arch(arch)),
        code(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        code(LOAD, 0, 0, NUMBER),
    ];
    program.extend(search(&runs));
    program
}

fn search(runs: &[(u32, Action)]) -> BpfProgram {
    let (left, right) = runs.split_at(runs.len() / 2);
    let Some((border, action)) = right.first() else {
        return leaf(REFUSE);
    };
    if left.is_empty() {
        return leaf(*action);
    }
    let left = search(left);
    let mut both = match u8::try_from(left.len()) {
        Ok(over) => vec![code(IF_AT_LEAST, over, 0, *border)],
        // Farther than a conditional jump reaches.
        Err(_) => {
            let over = u32::try_from(left.len()).unwrap_or(u32::MAX);
            vec![code(IF_AT_LEAST, 0, 1, *border), code(JUMP, 0, 0, over)]
        }
    };
    both.extend(left);
    both.extend(search(right));
    both
}

fn leaf(action: Action) -> BpfProgram {
    let allow = code(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let refuse = code(RETURN, 0, 0, errno(libc::EPERM as u16));
    let argument = code(LOAD, 0, 0, ARGUMENT_LOW);
    match action {
        Action::Allow => vec![allow],
        Action::Errno(number) => vec![code(RETURN, 0, 0, errno(number))],
        Action::UnlessAnyBit(bits) => {
            vec![argument, code(IF_ANY_BIT, 1, 0, bits), allow, refuse]
        }
        // The kernel takes the low half alone too: `int family`.
        Action::Unless(value) => vec![argument, code(IF_EQUAL, 1, 0, value), allow, refuse],
        Action::IfOneOf(values) => {
            let mut all = vec![
                code(LOAD, 0, 0, ARGUMENT_HIGH),
                code(IF_EQUAL, 1, 0, 0),
                refuse.clone(),
                argument,
            ];
            for value in values {
                all.push(code(IF_EQUAL, 0, 1, *value));
                all.push(allow.clone());
            }
            all.push(refuse);
            all
        }
    }
}

fn errno(number: u16) -> u32 {
    libc::SECCOMP_RET_ERRNO | u32::from(number)
}

/// `AUDIT_ARCH_*` (linux/audit.h): the ELF machine, 64-bit and little-endian.
fn audit_arch(arch: TargetArch) -> u32 {
    const FORM: u32 = 0xc000_0000;
    FORM | match arch {
        TargetArch::x86_64 => 62,
        TargetArch::aarch64 => 183,
        TargetArch::riscv64 => 243,
    }
}

fn code(operation: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        // All operations fit: they are 16 bits by definition.
        code: operation as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a call: a BPF machine in little.
    fn run(program: &BpfProgram, number: u32, argument: u64) -> u32 {
        let arch = audit_arch(std::env::consts::ARCH.try_into().unwrap());
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let c = &program[at];
            at += 1;
            let jump = |hit: bool| usize::from(if hit { c.jt } else { c.jf });
            match u32::from(c.code) {
                LOAD => {
                    a = match c.k {
                        NUMBER => number,
                        ARCH => arch,
                        ARGUMENT_LOW => argument as u32,
                        _ => (argument >> 32) as u32,
                    }
                }
                JUMP => at += c.k as usize,
                IF_EQUAL => at += jump(a == c.k),
                IF_AT_LEAST => at += jump(a >= c.k),
                IF_ANY_BIT => at += jump(a & c.k != 0),
                _ => return c.k,
            }
        }
    }

    #[test]
    fn runs_are_searched_and_not_numbers() {
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let rules = |numbers: std::ops::Range<u32>| numbers.map(|n| (n, Action::Allow)).collect();
        let one = compile(arch, &rules(0..400)).len();
        assert_eq!(one, compile(arch, &rules(0..2)).len());
        assert!(one < compile(arch, &rules(1..400)).len());
    }

    #[test]
    fn a_search_reaches_farther_than_a_conditional_jump() {
        let rules = (0..4000).map(|n| (2 * n, Action::Allow)).collect();
        let program = compile(std::env::consts::ARCH.try_into().unwrap(), &rules);
        for n in 0..8000 {
            let want = [libc::SECCOMP_RET_ALLOW, errno(1)][n as usize % 2];
            assert_eq!(run(&program, n, 0), want, "{n}");
        }
    }

    #[test]
    fn every_number_gets_its_own_action() {
        let values: &[u32] = &[0, 8, u32::MAX];
        let mut rules = BTreeMap::new();
        for n in (0..500).filter(|n| n % 7 != 0 && n % 11 != 3) {
            rules.insert(n, Action::Allow);
        }
        rules.insert(7, Action::Errno(38));
        rules.insert(56, Action::UnlessAnyBit(0b110));
        rules.insert(70, Action::Unless(40));
        rules.insert(77, Action::IfOneOf(values));
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let program = compile(arch, &rules);
        let (allow, eperm) = (libc::SECCOMP_RET_ALLOW, errno(1));
        for n in (0..600).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let want = match rules.get(&n) {
                Some(Action::Errno(e)) => errno(*e),
                Some(_) => allow,
                None => eperm,
            };
            assert_eq!(run(&program, n, 0), want, "{n}");
        }
        assert_eq!(run(&program, 56, 0b1000), allow);
        assert_eq!(run(&program, 56, 0b0100), eperm);
        assert_eq!(run(&program, 70, 40), eperm);
        assert_eq!(run(&program, 70, 1 << 32 | 40), eperm);
        assert_eq!(run(&program, 77, 8), allow);
        assert_eq!(run(&program, 77, 9), eperm);
        assert_eq!(run(&program, 77, 1 << 32 | 8), eperm);
    }
}
