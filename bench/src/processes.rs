//! Processes beside this one, and their memory.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::machine::{field, first_number};

/// The `pellicle` process that serves the mount at `at`.
pub(crate) fn serving(at: &Path) -> Result<u32> {
    let needle = at.as_os_str().as_encoded_bytes();
    let found = running("pellicle").into_iter().find(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.windows(needle.len()).any(|window| window == needle)
    });
    match found {
        Some(id) => Ok(id),
        None => bail!("no pellicle process serves {}", at.display()),
    }
}

/// Processes whose executable is called `program`. By the file that they execute: the command line
/// may begin with another name for it.
pub(crate) fn running(program: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| {
            fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe.ends_with(program))
        })
        .collect()
}

/// Resident memory, MiB.
pub(crate) fn resident_mib(id: u32) -> Result<f64> {
    let value = field(format!("/proc/{id}/status"), "VmRSS")
        .with_context(|| format!("process {id} has no VmRSS"))?;
    Ok(first_number(&value) as f64 / 1024.0)
}

/// What the page cache holds, MiB.
pub(crate) fn page_cache_mib() -> Result<f64> {
    let value = field("/proc/meminfo", "Cached").context("no Cached in /proc/meminfo")?;
    Ok(first_number(&value) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_memory() {
        let id = std::process::id();
        let exe = std::env::current_exe().unwrap();
        let name = exe.file_name().unwrap().to_str().unwrap();
        assert!(running(name).contains(&id));
        assert!(resident_mib(id).unwrap() > 0.5);
        assert!(resident_mib(u32::MAX).is_err());
        assert!(page_cache_mib().unwrap() > 0.0);
        assert!(serving(Path::new("/no such mount point")).is_err());
    }
}
