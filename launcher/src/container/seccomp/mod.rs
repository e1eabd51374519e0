//! The system calls a container may make: what docker's default profile allows, in our own words
//! (docker, "Seccomp security profiles for Docker").
//!
//! A list of what is allowed; everything else is `EPERM`, as if the caller lacked the right. Two
//! things are not so: `clone3` is `ENOSYS`, because a filter cannot look into its arguments and C
//! libraries fall back to `clone` on exactly that error; and `clone`, `personality` and `socket` are
//! allowed only with some arguments. Programs of another architecture than ours are killed.
//!
//! Programs of seccompiler compare one number after the other, and the kernel runs a new filter once
//! for every system call there is, to learn which ones it need not ask about: a millisecond for
//! each container. `program` makes a search tree instead, which costs a tenth.

mod lists;
mod program;

use std::collections::BTreeMap;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use seccompiler::{BpfProgram, TargetArch};

use super::caps;
use program::Action;

/// The compiled filter of one process.
#[derive(Clone, Debug)]
pub struct Filters(BpfProgram);

/// The namespaces that `clone` and `unshare` would make: `CLONE_NEW*` but the time namespace,
/// which `clone` cannot make.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// Personalities that change nothing about security: Linux, its uname-2.6 form, 32-bit forms of
/// both, and the query.
const PERSONALITIES: &[u32] = &[0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_VSOCK: u32 = 40;

/// The filters for a process with `capabilities`.
///
/// # Errors
/// On an architecture that is not supported.
pub fn build(capabilities: &LinuxCapabilities) -> Result<Filters, seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    Ok(Filters(program::compile(arch, &rules(capabilities))))
}

impl Filters {
    /// Puts this thread, and whatever it executes, under the filters for good. Sets
    /// `no_new_privs`.
    ///
    /// # Errors
    /// The kernel's, where it has no seccomp.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&self.0)
    }
}

/// What is to become of each call that is not simply refused.
fn rules(capabilities: &LinuxCapabilities) -> BTreeMap<u32, Action> {
    let mut rules = BTreeMap::new();
    let mut allow = |calls: &[libc::c_long]| {
        let numbers = calls.iter().filter_map(|n| u32::try_from(*n).ok());
        rules.extend(numbers.map(|n| (n, Action::Allow)));
    };
    allow(lists::ALWAYS);
    #[cfg(target_arch = "x86_64")]
    allow(lists::ALWAYS_X86_64);
    for (capability, calls) in lists::WITH_CAPABILITY {
        if caps::has(capabilities, *capability) {
            allow(calls);
        }
    }
    let mut set = |call: libc::c_long, action| {
        if let Ok(number) = u32::try_from(call) {
            rules.insert(number, action);
        }
    };
    set(libc::SYS_clone3, Action::Errno(libc::ENOSYS as u16));
    if !caps::has(capabilities, Capability::SysAdmin) {
        // The flags are the first argument on all architectures there is a list for.
        set(libc::SYS_clone, Action::UnlessAnyBit(NEW_NAMESPACES));
    }
    set(libc::SYS_personality, Action::IfOneOf(PERSONALITIES));
    set(libc::SYS_socket, Action::Unless(AF_VSOCK));
    rules
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
    fn the_program_is_short_enough_to_be_loaded_at_every_start() {
        for add in [&[][..], &["ALL"]] {
            let length = filters(add).0.len();
            assert!(length < 250, "{length}");
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
            rules(&caps::chosen(&add, &[]).unwrap())
        };
        assert!(!syscalls(&[]).contains_key(&(libc::SYS_mount as u32)));
        assert!(syscalls(&["SYS_ADMIN"]).contains_key(&(libc::SYS_mount as u32)));
        assert!(syscalls(&[]).contains_key(&(libc::SYS_chroot as u32)));
        let clone = libc::SYS_clone as u32;
        assert_eq!(syscalls(&[])[&clone], Action::UnlessAnyBit(NEW_NAMESPACES));
        assert_eq!(syscalls(&["SYS_ADMIN"])[&clone], Action::Allow);
    }

    #[test]
    fn clone3_is_as_if_the_kernel_did_not_know_it() {
        under(filters(&["ALL"]), || {
            // Falls back to clone, as a process is still made.
            assert!(std::process::Command::new("/bin/true").status().is_ok());
        });
    }
}
