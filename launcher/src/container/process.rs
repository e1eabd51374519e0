//! Processes of the host: each told from another that got its number later, and waited for.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};

/// A process, told from another one that got the same number later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number, in the host's numbering as the supervisor saw it.
    pub pid: i32,
    /// When it started, clock ticks since the host's start.
    pub started: u64,
    /// The host's start it is of.
    pub boot: String,
}

impl ProcessId {
    /// Of the running process `pid`; `None` once it is gone.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        Some(Self {
            pid: pid.as_raw_nonzero().get(),
            started: start_ticks(pid)?,
            boot: boot_id(),
        })
    }

    /// A descriptor of that very process; `None` if it is gone.
    #[must_use]
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Compared after opening: from here on the number cannot become another process's.
        (start_ticks(pid)? == self.started && boot_id() == self.boot).then_some(fd)
    }
}

/// Waits until the process that `pidfd` is open at has ended, or `deadline`; whether it has.
pub fn ended_by(pidfd: impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn start_ticks(pid: Pid) -> Option<u64> {
    let stat = fs::read(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    start_ticks_in(&stat)
}

/// Field 22 of proc_pid_stat(5); field 2, the name, may itself hold spaces and parentheses.
fn start_ticks_in(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_number() {
        let mut own = ProcessId::of(rustix::process::getpid()).unwrap();
        assert!(own.open().is_some());
        own.started += 1;
        assert!(own.open().is_none());
        assert_eq!(
            start_ticks_in(b"7 (a) b) c) S 1 1 1 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 0"),
            Some(4711)
        );
        for bad in [&b""[..], b"7 (x", b"7 (x)", b"7 (x) S 1", b"\xff)\xff"] {
            assert_eq!(start_ticks_in(bad), None);
        }
    }
}
