//! What a container may use at most, and how people write it.

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::container::ContainerError;

/// The period that processor time is counted in, microseconds.
pub(super) const CPU_PERIOD_US: u64 = 100_000;

/// What a container may use at most; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; swap is not given on top.
    pub memory: Option<u64>,
    /// Processor time in microseconds per `CPU_PERIOD_US` of real time.
    pub cpu_quota_us: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// The limits that the specification's resources name.
    #[must_use]
    pub fn of(resources: &LinuxResources) -> Self {
        let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        Self {
            memory: resources
                .memory()
                .and_then(|m| m.limit())
                .and_then(positive),
            cpu_quota_us: resources
                .cpu()
                .as_ref()
                .and_then(|c| c.quota())
                .and_then(positive),
            pids: resources.pids().as_ref().and_then(|p| positive(p.limit())),
        }
    }

    /// Whether there is no limit at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The controllers that hold to them.
    pub(super) fn controllers(&self) -> Vec<&'static str> {
        [
            ("memory", self.memory.is_some()),
            ("cpu", self.cpu_quota_us.is_some()),
            ("pids", self.pids.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, wanted)| wanted.then_some(name))
        .collect()
    }
}

/// `512m`, `1.5g`, `1048576`: bytes, in powers of 1024, as docker reads them.
///
/// # Errors
/// [`ContainerError::Invalid`]; less than 6 MiB too, in which nothing starts.
pub fn parse_memory(text: &str) -> Result<u64, ContainerError> {
    const LEAST: u64 = 6 << 20;
    let bad = |why: &str| ContainerError::invalid("--memory", text, why);
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad("give a number with b, k, m, g or t")),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| bad("give a number with b, k, m, g or t"))?;
    let bytes = number * (1_u64 << shift) as f64;
    if !bytes.is_finite() || !(0.0..9e18).contains(&bytes) {
        return Err(bad("out of range"));
    }
    let bytes = bytes as u64;
    if bytes < LEAST {
        return Err(bad("at least 6m is needed"));
    }
    Ok(bytes)
}

/// `1.5` processors as microseconds per period.
///
/// # Errors
/// [`ContainerError::Invalid`].
pub fn parse_cpus(text: &str) -> Result<u64, ContainerError> {
    let bad = |why: &str| ContainerError::invalid("--cpus", text, why);
    let cpus: f64 = text
        .trim()
        .parse()
        .map_err(|_| bad("give a number such as 1.5"))?;
    if !(0.01..=65536.0).contains(&cpus) {
        return Err(bad("give a number from 0.01 on"));
    }
    Ok((cpus * CPU_PERIOD_US as f64) as u64)
}

/// The period that [`parse_cpus`] is relative to, microseconds.
#[must_use]
pub fn cpu_period_us() -> u64 {
    CPU_PERIOD_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_processors_are_read_as_docker_reads_them() {
        assert_eq!(parse_memory("512m").unwrap(), 512 << 20);
        assert_eq!(parse_memory("1.5G").unwrap(), 3 << 29);
        assert_eq!(parse_memory("10485760").unwrap(), 10 << 20);
        for bad in [
            "",
            "m",
            "-1g",
            "1x",
            "nan",
            "inf",
            "1",
            "9999999999t",
            "1mm",
        ] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_cpus("1.5").unwrap(), 150_000);
        for bad in ["", "0", "-1", "nan", "inf", "x", "1e99"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
