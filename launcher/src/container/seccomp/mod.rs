//! The system calls a container may make: what docker's default profile allows, in our own words
//! (docker, "Seccomp security profiles for Docker").
//!
//! A list of what is allowed; everything else is `EPERM`, as if the caller lacked the right. Two
//! things are not so: `clone3` is `ENOSYS`, because a filter cannot look into its arguments and C
//! libraries fall back to `clone` on exactly that error; and `clone`, `personality` and `socket` are
//! allowed only with some arguments. Programs of another architecture than ours are killed.
//!
//! Two programs are installed: of several filters' errors the one installed last is reported, so
//! that the one with `ENOSYS` comes second.

mod lists;

use std::collections::BTreeMap;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::caps;

/// The compiled filters of one process, in the order they are installed.
#[derive(Clone, Debug)]
pub struct Filters(Vec<BpfProgram>);

/// The namespaces that `clone` and `unshare` would make: `CLONE_NEW*` but the time namespace,
/// which `clone` cannot make.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Personalities that change nothing about security: Linux, its uname-2.6 form, 32-bit forms of
/// both, and the query.
const PERSONALITIES: &[u64] = &[0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_VSOCK: u64 = 40;

/// The filters for a process with `capabilities`.
///
/// # Errors
/// On an architecture that is not supported.
pub fn build(capabilities: &LinuxCapabilities) -> Result<Filters, seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let main = SeccompFilter::new(
        rules(capabilities)?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    )?;
    let clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )?;
    Ok(Filters(vec![main.try_into()?, clone3.try_into()?]))
}

impl Filters {
    /// Puts this thread, and whatever it executes, under the filters for good. Sets
    /// `no_new_privs`.
    ///
    /// # Errors
    /// The kernel's, where it has no seccomp.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        self.0.iter().try_for_each(|p| seccompiler::apply_filter(p))
    }
}

fn rules(
    capabilities: &LinuxCapabilities,
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};

    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = lists::ALWAYS
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(lists::ALWAYS_X86_64.iter().map(|call| (*call, Vec::new())));
    for (capability, calls) in lists::WITH_CAPABILITY {
        if caps::has(capabilities, *capability) {
            rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
    }
    let when = |argument: u8, op, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value)?;
        SeccompRule::new(vec![condition])
    };
    if !caps::has(capabilities, Capability::SysAdmin) {
        // The flags are the first argument on all architectures there is a list for.
        rules.insert(libc::SYS_clone, vec![when(0, MaskedEq(NEW_NAMESPACES), 0)?]);
    }
    let personalities: Result<Vec<_>, _> = PERSONALITIES.iter().map(|p| when(0, Eq, *p)).collect();
    rules.insert(libc::SYS_personality, personalities?);
    rules.insert(libc::SYS_socket, vec![when(0, Ne, AF_VSOCK)?]);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(add: &[&str]) -> Filters {
        let add: Vec<String> = add.iter().map(|s| (*s).to_owned()).collect();
        build(&caps::chosen(&add, &[]).unwrap()).unwrap()
    }

    /// Runs `check` in a thread of its own under the filters: they bind a thread, not the process.
    fn under(filters: Filters, check: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            filters.install().unwrap();
            check();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn programs_fit_the_kernel() {
        for program in &filters(&["ALL"]).0 {
            assert!(program.len() < 4096, "{}", program.len());
        }
    }

    #[test]
    fn dangerous_calls_are_refused_and_ordinary_ones_go_on() {
        under(filters(&[]), || {
            use nix::{errno::Errno, sched::CloneFlags};
            assert_eq!(
                nix::sched::unshare(CloneFlags::CLONE_NEWUSER),
                Err(Errno::EPERM)
            );
            let none: Option<&str> = None;
            assert_eq!(
                nix::mount::mount(none, "/tmp", none, nix::mount::MsFlags::empty(), none),
                Err(Errno::EPERM)
            );
            assert!(std::fs::read("/proc/self/stat").is_ok());
            assert!(std::thread::spawn(|| 5).join().is_ok());
        });
    }

    #[test]
    fn arguments_are_looked_at() {
        under(filters(&[]), || {
            use nix::sys::socket;
            let socket = |family| {
                socket::socket(
                    family,
                    socket::SockType::Stream,
                    socket::SockFlag::SOCK_CLOEXEC,
                    None,
                )
            };
            assert!(socket(socket::AddressFamily::Unix).is_ok());
            assert_eq!(
                socket(socket::AddressFamily::Vsock).err(),
                Some(nix::errno::Errno::EPERM)
            );
        });
    }

    #[test]
    fn a_capability_opens_the_calls_that_need_it() {
        let syscalls = |add: &[&str]| {
            let add: Vec<String> = add.iter().map(|s| (*s).to_owned()).collect();
            rules(&caps::chosen(&add, &[]).unwrap()).unwrap()
        };
        assert!(!syscalls(&[]).contains_key(&libc::SYS_mount));
        assert!(syscalls(&["SYS_ADMIN"]).contains_key(&libc::SYS_mount));
        assert!(syscalls(&[]).contains_key(&libc::SYS_chroot));
        assert_eq!(syscalls(&[])[&libc::SYS_clone].len(), 1);
        assert_eq!(syscalls(&["SYS_ADMIN"])[&libc::SYS_clone].len(), 0);
        assert_eq!(syscalls(&["ALL"])[&libc::SYS_personality].len(), 5);
    }
}
