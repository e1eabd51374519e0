//! Making processes: forks into new namespaces, and what a forked child has to set right before it
//! executes something.
//!
//! A fork copies one thread. Whatever lock another thread held at that moment (the allocator's, a
//! buffer's) would stay locked in the child for ever, so forks are refused in a process with more
//! than one thread; that is what makes [`fork`] safe to call and ordinary code safe to run in the
//! child.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

/// What the caller of [`fork`] is afterwards.
#[derive(Debug)]
pub enum Forked {
    /// The new process. It should end with [`exit_now`] or by executing something, never by
    /// returning into the code of its parent.
    Child,
    /// The process that forked.
    Parent {
        /// The child's number, as this process sees it.
        pid: Pid,
        /// A descriptor of the child, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// How the child relates to the process that forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// An ordinary child.
    Child,
    /// A child of the caller's own parent (`CLONE_PARENT`): it is that parent which waits for it.
    Sibling,
}

/// How long a thread that was joined may take to be gone.
const ENDING: Duration = Duration::from_secs(2);

/// Forks, the child being in new namespaces as `namespaces` (`CLONE_NEW*` bits) says.
///
/// clone(2), not clone3(2): filters in the way of nested containers refuse the latter, since they
/// cannot look into its arguments.
///
/// # Errors
/// `EBUSY` if this process has more than one thread, not counting those that have been joined; otherwise
/// clone(2)'s, among them `ENOSPC` and `EPERM` where user namespaces are limited or switched off.
pub fn fork(namespaces: i32, kinship: Kinship) -> io::Result<Forked> {
    alone()?;
    let flags = libc::CLONE_PIDFD
        | namespaces
        | match kinship {
            Kinship::Child => libc::SIGCHLD,
            // The exit signal is that of the parent's other child then.
            Kinship::Sibling => libc::CLONE_PARENT,
        };
    let mut pidfd: libc::c_int = -1;
    // SAFETY: without CLONE_VM and with no stack given this is fork(2): the child goes on with a
    // copy of this process's memory and of the one thread there is (checked above). The kernel
    // writes the descriptor to `pidfd`, which lives across the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            0 as libc::c_long,
            &raw mut pidfd,
            0 as libc::c_long,
            0 as libc::c_long,
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the kernel made this descriptor for us just now; nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or_else(|| io::Error::other("the kernel returned no process number"))?;
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// [`single_threaded`], once threads that have been joined are gone.
fn alone() -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match single_threaded() {
            // A thread can be joined a moment before the kernel has let go of it.
            Err(_) if begun.elapsed() < ENDING => thread::sleep(Duration::from_micros(100)),
            result => return result,
        }
    }
}

/// Fails with `EBUSY` unless this process has a single thread and shares its memory with nobody.
///
/// Asks the kernel, not /proc, which may be another pid namespace's.
///
/// # Errors
/// See above.
pub fn single_threaded() -> io::Result<()> {
    // SAFETY: unshare(2) with CLONE_VM changes nothing: it succeeds where there is nothing to
    // unshare, and is refused elsewhere.
    if unsafe { libc::unshare(libc::CLONE_VM) } == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }
}

/// Ends this process at once: nothing is flushed, dropped or run at exit. For forked children,
/// whose parent has the same buffers and guards.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Marks all descriptors from `first` on close-on-exec.
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors; none is closed in this process.
    let done = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes all descriptors from `first` on and then runs `rest` to the end of the process.
///
/// For a forked child that stays without executing anything. Objects that own descriptors must not
/// be used or dropped any more, which is why this takes the rest of the process's life.
pub fn close_all_and_run(first: u32, rest: impl FnOnce() -> i32) -> ! {
    // SAFETY: descriptors owned elsewhere become invalid, and are never touched again: `rest` is
    // all that runs, and the process ends without dropping anything.
    unsafe {
        libc::close_range(first, u32::MAX, 0);
    }
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rest)).unwrap_or(125);
    exit_now(code)
}

/// Every signal gets its default action and none is blocked, as a program expects it at its start.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is always a valid action; the errors for KILL, STOP and the C library's
        // own signals change nothing.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    // SAFETY: an all-zero set is a valid value to pass to sigemptyset, which fills it in.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Sends signal number `signal` (0 only asks whether the process is there) to the process that
/// `pidfd` is open at. By number, since real-time signals have no other names.
///
/// # Errors
/// pidfd_send_signal(2)'s: `ESRCH` once the process was waited for, `EINVAL`, `EPERM`.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed: a null siginfo asks the kernel to fill in kill(2)'s.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives this process a session keyring of its own, so that it does not see the caller's keys.
///
/// # Errors
/// keyctl(2)'s, among them `EDQUOT` when the user has too many keyrings.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let got = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if got < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Switches the loopback device of this process's network namespace on.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is, with a name that ends in NUL.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets `attributes` (`MOUNT_ATTR_*` bits) on the mount that `mount` is open at; on all mounts
/// below it too if `recursive`. What is set already stays set.
///
/// # Errors
/// mount_setattr(2)'s; `ENOSYS` before Linux 5.12.
pub fn mount_set_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    recursive: bool,
) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and the kernel reads exactly the size of the
    // structure that is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_with_several_threads_is_not_forked() {
        // The test harness runs each test in a thread beside the main one.
        let refused = fork(0, Kinship::Child).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn mount_attributes_of_what_is_no_mount_root_are_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(mount_set_attributes(file.as_fd(), libc::MOUNT_ATTR_RDONLY, false).is_err());
    }
}
