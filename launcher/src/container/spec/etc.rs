//! The files of a container's directory that are shown in its /etc.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, fchmod};

use crate::container::ContainerError;

/// Their names, in the directory as in /etc.
pub(super) const FILES: &[&str] = &["hosts", "hostname", "resolv.conf"];

/// Writes the files that the container sees in its /etc.
///
/// # Errors
/// The host's.
pub fn write_etc(dir: &Path, spec: &Spec, host_network: bool) -> Result<(), ContainerError> {
    let name = spec.hostname().clone().unwrap_or_default();
    let of_host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (hosts, resolv) = if host_network {
        (of_host("/etc/hosts"), of_host("/etc/resolv.conf"))
    } else {
        let hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n"
        );
        (hosts, "# no network\n".to_owned())
    };
    for (file, text) in FILES.iter().zip([hosts, format!("{name}\n"), resolv]) {
        let path = dir.join(file);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&path)
            .and_then(|mut f| {
                // Whatever the umask: users other than root read it too.
                fchmod(&f, Mode::from_raw_mode(0o644))?;
                f.write_all(text.as_bytes())
            })
            .map_err(ContainerError::file("write", path))?;
    }
    Ok(())
}
