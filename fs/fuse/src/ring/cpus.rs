//! Which thread serves which queue.
//!
//! The kernel puts a request on the queue of the CPU that its program runs on, and begins to use
//! a ring only when every possible CPU has a queue (`is_ring_ready` in `fs/fuse/dev_uring.c`),
//! also those that are not there yet or that this process may not run on.

use std::{fs, io};

use rustix::thread::CpuSet;

/// What one thread serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The CPU to stay on; `None`: wherever there is room.
    pub(super) cpu: Option<usize>,
    /// The queue of each entry.
    pub(super) entries: Vec<u16>,
}

/// Where the kernel tells how many CPUs there could ever be.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// The shares for this machine: one for each CPU that this process may run on, and one for all other
/// CPUs together. Each thread has one entry of each of its queues: more gain nothing, since an answer
/// fetches the next request in the same system call, and cost, for buffers that take turns do not stay in
/// the CPU's cache (`fs/docs/TRANSPORT.md`).
pub(super) fn shares() -> io::Result<Vec<Share>> {
    let text = fs::read_to_string(POSSIBLE)?;
    let possible = count(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{POSSIBLE} says {text:?}"),
        )
    })?;
    let mine = rustix::thread::sched_getaffinity(None)?;
    Ok(divide(possible, |cpu| {
        cpu < CpuSet::MAX_CPU && mine.is_set(cpu)
    }))
}

fn divide(possible: u16, mine: impl Fn(usize) -> bool) -> Vec<Share> {
    let (here, elsewhere): (Vec<u16>, Vec<u16>) =
        (0..possible).partition(|&queue| mine(queue.into()));
    let mut shares: Vec<Share> = here
        .into_iter()
        .map(|queue| Share {
            cpu: Some(queue.into()),
            entries: vec![queue],
        })
        .collect();
    if !elsewhere.is_empty() {
        shares.push(Share {
            cpu: None,
            entries: elsewhere,
        });
    }
    shares
}

/// Large reads in a row after which a thread leaves its CPU.
const STREAM: u32 = 4;

/// Where a thread runs. A program waits for what it asks, so the answer is quickest on its own CPU,
/// which it leaves idle meanwhile. Reading ahead is the exception: the program goes on with the
/// pages before, and the server had better copy on another CPU.
///
/// That an affinity is refused (the administrator took the CPU away) is no error: the thread then
/// serves from elsewhere.
pub(super) struct Seat {
    cpu: Option<CpuSet>,
    anywhere: Option<CpuSet>,
    large_reads: u32,
}

impl Seat {
    /// Sits down on `cpu`.
    pub(super) fn take(cpu: Option<usize>) -> Self {
        let cpu = cpu.filter(|&cpu| cpu < CpuSet::MAX_CPU).map(|cpu| {
            let mut only = CpuSet::new();
            only.set(cpu);
            only
        });
        let seat = Self {
            cpu,
            anywhere: rustix::thread::sched_getaffinity(None).ok(),
            large_reads: 0,
        };
        move_to(seat.cpu.as_ref());
        seat
    }

    /// An answer was given; `large`: to a read of what is probably read ahead.
    pub(super) fn answered(&mut self, large: bool) {
        if large {
            self.large_reads = self.large_reads.saturating_add(1);
            if self.large_reads == STREAM && self.cpu.is_some() {
                move_to(self.anywhere.as_ref());
            }
        } else {
            if self.large_reads >= STREAM {
                move_to(self.cpu.as_ref());
            }
            self.large_reads = 0;
        }
    }
}

fn move_to(cpus: Option<&CpuSet>) {
    if let Some(cpus) = cpus {
        let _ = rustix::thread::sched_setaffinity(None, cpus);
    }
}

/// How many CPUs a list such as `0-3,8` names.
fn count(list: &str) -> Option<u16> {
    let mut sum = 0u16;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        sum = sum.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        for (list, n) in [("0\n", 1), ("0-1\n", 2), ("0-3,8,10-11\n", 7)] {
            assert_eq!(count(list), Some(n), "{list:?}");
        }
        for list in ["", "x", "3-1", "0-", "-1", "0-65535", "0,,1"] {
            assert_eq!(count(list), None, "{list:?}");
        }
    }

    #[test]
    fn every_possible_cpu_has_a_queue_whatever_this_process_may_use() {
        let all = divide(4, |_| true);
        assert_eq!(all.len(), 4);
        for (cpu, queue) in [0u16, 1, 2, 3].into_iter().enumerate() {
            let share = Share {
                cpu: Some(cpu),
                entries: vec![queue],
            };
            assert_eq!(all[cpu], share);
        }
        let some = divide(128, |cpu| cpu == 5);
        assert_eq!(some.len(), 2);
        assert_eq!(some[0].entries, [5]);
        assert_eq!(some[1].cpu, None);
        assert_eq!(some[1].entries.len(), 127);
        let none = divide(2, |_| false);
        assert_eq!(
            none,
            [Share {
                cpu: None,
                entries: vec![0, 1]
            }]
        );
    }

    #[test]
    fn a_thread_leaves_its_cpu_for_a_stream_of_large_reads_only() {
        std::thread::spawn(|| {
            let now = || rustix::thread::sched_getaffinity(None).unwrap();
            let before = now();
            let first = (0..CpuSet::MAX_CPU)
                .find(|&cpu| before.is_set(cpu))
                .unwrap();
            let mut seat = Seat::take(Some(first));
            let seated = now();
            assert!(seated.is_set(first) && seated.count() == 1);
            for _ in 1..STREAM {
                seat.answered(true);
            }
            assert_eq!(now(), seated);
            seat.answered(true);
            assert_eq!(now(), before);
            seat.answered(true);
            seat.answered(false);
            assert_eq!(now(), seated);
        })
        .join()
        .unwrap();
    }
}
