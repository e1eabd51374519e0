//! Putting work that is done at the same time on different CPUs.
//!
//! Linux leaves a new or woken task on the CPU of whoever made or woke it unless another one is known
//! to be idle; in a virtual machine an idle CPU is one that the host has taken away, and not known to be
//! so (`available_idle_cpu`, kernel/sched). The processes that start a container live for a
//! millisecond or two, too short for the scheduler to spread them later: they ran one after the other
//! beside an idle CPU.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The CPU that is `turn` + 1 places after the present one, of those this process may use; `None` if
/// there is but one.
fn after(turn: usize) -> Option<(CpuSet, CpuSet)> {
    let allowed = sched_getaffinity(None).ok()?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    let here = cpus.iter().position(|cpu| *cpu == sched_getcpu())?;
    if cpus.len() < 2 {
        return None;
    }
    let next = here.checked_add(turn)?.checked_add(1)?;
    let mut one = CpuSet::new();
    one.set(*cpus.get(next.checked_rem(cpus.len())?)?);
    Some((one, allowed))
}

/// Where the helper number `turn` is to run: on a CPU of its own, as far as there are enough.
pub(super) fn for_helper(turn: usize) -> Option<CpuSet> {
    after(turn).map(|(one, _)| one)
}

/// This thread, and what it starts, run there from now on. Only a hint: not to be allowed it is no error.
pub(super) fn stay_on(cpus: &CpuSet) {
    let _ = sched_setaffinity(None, cpus);
}

/// Leaves the CPU that this process shares with the one that forked it. It may go anywhere afterwards.
pub(super) fn step_aside() {
    if let Some((other, allowed)) = after(0) {
        stay_on(&other);
        stay_on(&allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stepping_aside_leaves_what_is_allowed_as_it_was() {
        let before = sched_getaffinity(None).expect("affinity");
        step_aside();
        assert!(sched_getaffinity(None).expect("affinity") == before);
    }

    #[test]
    fn helpers_get_one_cpu_each_of_those_that_are_allowed() {
        let allowed = sched_getaffinity(None).expect("affinity");
        for turn in 0..3 {
            let Some(cpus) = for_helper(turn) else {
                assert_eq!(allowed.count(), 1);
                continue;
            };
            assert_eq!(cpus.count(), 1);
            assert!((0..CpuSet::MAX_CPU).all(|cpu| !cpus.is_set(cpu) || allowed.is_set(cpu)));
        }
    }
}
