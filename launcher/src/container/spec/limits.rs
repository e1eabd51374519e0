//! What a container may use: its resource limits, by process and as a whole.

use oci_spec::runtime::{
    LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType,
};

use crate::container::{ContainerError, cgroup, request::Request};

/// The limit of each process that `text`, `NAME=SOFT[:HARD]`, asks for.
pub(super) fn limit(text: &str) -> Result<PosixRlimit, ContainerError> {
    let bad = |why: &str| ContainerError::invalid("--ulimit", text, why);
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| bad("give NAME=SOFT[:HARD]"))?;
    let typ: PosixRlimitType = format!("RLIMIT_{}", name.to_ascii_uppercase())
        .parse()
        .map_err(|_| bad("no such limit"))?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number
            .parse::<u64>()
            .map_err(|_| bad("give a number or unlimited")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(bad("the soft limit is above the hard one"));
    }
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft)
        .hard(hard)
        .build()
        .map_err(|e| bad(&e.to_string()))
}

/// The limits of the container as a whole.
pub(super) fn resources(request: &Request) -> Result<LinuxResources, ContainerError> {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    if let Some(text) = &request.memory {
        let bytes = i64::try_from(cgroup::parse_memory(text)?).unwrap_or(i64::MAX);
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(bytes)).set_swap(Some(bytes));
        resources.set_memory(Some(memory));
    }
    if let Some(text) = &request.cpus {
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(i64::try_from(cgroup::parse_cpus(text)?).ok())
            .set_period(Some(cgroup::cpu_period_us()));
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = request.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::from(limit));
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}
