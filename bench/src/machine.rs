//! The machine that a figure belongs to.

use std::{fs, thread};

use anyhow::Result;
use serde::Serialize;

/// What is told about it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    /// Runnable processes over the last minute, before the run.
    pub(crate) load: f64,
    pub(crate) root: bool,
}

impl Machine {
    /// Looks at this one.
    pub(crate) fn look() -> Result<Self> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            cpu: field("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory
                .split(' ')
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            load: load
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0.0),
            root: nix::unistd::geteuid().is_root(),
        })
    }

    /// What speaks against measuring now.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.load > 0.5 {
            warnings.push(format!(
                "the machine is busy (load {:.1}): expect noise",
                self.load
            ));
        }
        if !self.root {
            warnings.push("not root: kernel overlayfs is left out".to_owned());
        }
        warnings
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Linux {}, {} x {}, {} MiB, {}",
            self.kernel,
            self.cpus,
            self.cpu,
            self.memory_mib,
            if self.root {
                "as root"
            } else {
                "as an ordinary user"
            }
        )
    }
}
