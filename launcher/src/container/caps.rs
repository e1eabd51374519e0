//! Capabilities of a container's processes: docker's default set, changed by `--cap-add` and
//! `--cap-drop` (docker run, "Runtime privilege and Linux capabilities").

use std::collections::BTreeSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::ContainerError;

/// What docker gives a container that asks for nothing.
const DEFAULT: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Every capability, with its bit (capability.h).
const ALL: &[(Capability, u8)] = &[
    (Capability::Chown, 0),
    (Capability::DacOverride, 1),
    (Capability::DacReadSearch, 2),
    (Capability::Fowner, 3),
    (Capability::Fsetid, 4),
    (Capability::Kill, 5),
    (Capability::Setgid, 6),
    (Capability::Setuid, 7),
    (Capability::Setpcap, 8),
    (Capability::LinuxImmutable, 9),
    (Capability::NetBindService, 10),
    (Capability::NetBroadcast, 11),
    (Capability::NetAdmin, 12),
    (Capability::NetRaw, 13),
    (Capability::IpcLock, 14),
    (Capability::IpcOwner, 15),
    (Capability::SysModule, 16),
    (Capability::SysRawio, 17),
    (Capability::SysChroot, 18),
    (Capability::SysPtrace, 19),
    (Capability::SysPacct, 20),
    (Capability::SysAdmin, 21),
    (Capability::SysBoot, 22),
    (Capability::SysNice, 23),
    (Capability::SysResource, 24),
    (Capability::SysTime, 25),
    (Capability::SysTtyConfig, 26),
    (Capability::Mknod, 27),
    (Capability::Lease, 28),
    (Capability::AuditWrite, 29),
    (Capability::AuditControl, 30),
    (Capability::Setfcap, 31),
    (Capability::MacOverride, 32),
    (Capability::MacAdmin, 33),
    (Capability::Syslog, 34),
    (Capability::WakeAlarm, 35),
    (Capability::BlockSuspend, 36),
    (Capability::AuditRead, 37),
    (Capability::Perfmon, 38),
    (Capability::Bpf, 39),
    (Capability::CheckpointRestore, 40),
];

fn parse(name: &str) -> Result<Vec<Capability>, ContainerError> {
    let upper = name.trim().to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(ALL.iter().map(|(c, _)| *c).collect());
    }
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.iter()
        .map(|(c, _)| *c)
        .find(|c| c.to_string().strip_prefix("CAP_").unwrap_or(&c.to_string()) == short)
        .map(|c| vec![c])
        .ok_or_else(|| ContainerError::invalid("capability", name, "no such capability"))
}

/// The set after `add` and `drop`, as the specification has it: bounding, permitted and effective
/// alike, inheritable and ambient empty.
///
/// # Errors
/// [`ContainerError::Invalid`] for a name that is no capability.
pub fn chosen(add: &[String], drop: &[String]) -> Result<LinuxCapabilities, ContainerError> {
    let is_all = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case("all"));
    let mut set: BTreeSet<u8> = DEFAULT.iter().filter_map(bit).collect();
    if is_all(add) {
        set = ALL.iter().map(|(_, b)| *b).collect();
    } else if is_all(drop) {
        set.clear();
    }
    for name in drop {
        let gone = parse(name)?;
        if !name.eq_ignore_ascii_case("all") {
            gone.iter().filter_map(bit).for_each(|b| {
                set.remove(&b);
            });
        }
    }
    for name in add {
        set.extend(
            parse(name)?
                .iter()
                .filter_map(bit)
                .filter(|_| !name.eq_ignore_ascii_case("all")),
        );
    }
    let chosen: std::collections::HashSet<Capability> = ALL
        .iter()
        .filter(|(_, b)| set.contains(b))
        .map(|(c, _)| *c)
        .collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(chosen.clone()))
        .set_permitted(Some(chosen.clone()))
        .set_effective(Some(chosen))
        .set_inheritable(Some(Default::default()))
        .set_ambient(Some(Default::default()));
    Ok(capabilities)
}

fn bit(capability: &Capability) -> Option<u8> {
    ALL.iter().find(|(c, _)| c == capability).map(|(_, b)| *b)
}

fn bits(set: Option<&std::collections::HashSet<Capability>>) -> CapabilitySet {
    let bits = set
        .into_iter()
        .flatten()
        .filter_map(bit)
        .fold(0_u64, |all, b| all | 1 << b);
    CapabilitySet::from_bits_retain(bits)
}

/// Whether `capability` is in the bounding set of `capabilities`.
#[must_use]
pub fn has(capabilities: &LinuxCapabilities, capability: Capability) -> bool {
    capabilities
        .bounding()
        .as_ref()
        .is_some_and(|s| s.contains(&capability))
}

/// Drops from the bounding set whatever is not in `capabilities`. Needs `CAP_SETPCAP`.
///
/// # Errors
/// The kernel's.
pub fn bound(capabilities: &LinuxCapabilities) -> rustix::io::Result<()> {
    let keep = bits(capabilities.bounding().as_ref());
    for number in 0..64_u32 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last capability this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Takes on the permitted, effective and inheritable sets; root only, for other users' effective
/// sets are empty after the change of user, as docker has them.
///
/// # Errors
/// The kernel's.
pub fn take_on(capabilities: &LinuxCapabilities, is_root: bool) -> rustix::io::Result<()> {
    let when_root = |set: Option<&_>| {
        if is_root {
            bits(set)
        } else {
            CapabilitySet::empty()
        }
    };
    // The old permitted set bounds the new one: what a nested container never had is no error.
    let have = rustix::thread::capabilities(None)?.permitted;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: when_root(capabilities.effective().as_ref()) & have,
            permitted: when_root(capabilities.permitted().as_ref()) & have,
            inheritable: when_root(capabilities.inheritable().as_ref()),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str]) -> usize {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let set = chosen(&own(add), &own(drop)).unwrap();
        set.bounding().as_ref().unwrap().len()
    }

    #[test]
    fn additions_and_drops_apply_as_docker_has_them() {
        assert_eq!(names(&[], &[]), 14);
        assert_eq!(names(&["SYS_PTRACE"], &["cap_kill", "MKNOD"]), 13);
        assert_eq!(names(&[], &["ALL"]), 0);
        assert_eq!(names(&["net_admin"], &["all"]), 1);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"]), 40);
        assert!(chosen(&["SYS_NOTHING".into()], &[]).is_err());
        assert_eq!(
            bits(chosen(&[], &[]).unwrap().bounding().as_ref()).bits(),
            0xa80425fb
        );
    }
}
