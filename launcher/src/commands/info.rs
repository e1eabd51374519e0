//! `pellicle info`: what there is to work with.

use std::{fs, path::Path, process::ExitCode};

use clap::Args;
use rustix::fs::{Access, access};
use serde_json::{Map, Value, json};

use crate::{
    CliError, Context,
    commands::{format::FormatOneArg, store::usage},
    container::{
        registry::{Listed, Registry},
        state::Status,
    },
    mount, output,
};

/// Tell versions, what the host offers, and where the store is
///
/// Says of each thing that Pellicle can use whether it is there: the first thing to look at, and to
/// put into a report, when something does not work. Makes no store where there is none.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle info
  pellicle info --format '{{.Host.Kernel}}'
  pellicle info --format json | jq .Host")]
pub struct InfoArgs {
    /// How to print.
    #[command(flatten)]
    pub format: FormatOneArg,
}

/// Runs the command.
///
/// # Errors
/// If it is not known where the store is, or nothing can be written.
pub fn run(cx: &Context, args: InfoArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let root = cx.root()?;
    let (files, bytes) = usage(root);
    let info = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Store": {
            "Root": root.display().to_string(),
            "Exists": root.is_dir(),
            "Files": files,
            "Size": output::bytes(bytes),
        },
        "Host": host(),
        "Mounts": mounts()?,
        "Containers": containers(cx)?,
    });
    format.print_one(&cx.out, &info, || {
        let mut text = String::new();
        show(&info, 0, &mut text);
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Which way requests come to each mount.
fn mounts() -> Result<Value, CliError> {
    let mut all = Map::new();
    for m in mount::list()? {
        let served = mount::ask(&m.dir).map_or_else(
            |e| format!("not known: {e}"),
            |told| told.lines().next().unwrap_or_default().to_owned(),
        );
        all.insert(m.dir.display().to_string(), Value::String(served));
    }
    Ok(Value::Object(all))
}

/// Which way requests come to each container that runs.
fn containers(cx: &Context) -> Result<Value, CliError> {
    let mut all = Map::new();
    if cx.root()?.is_dir() {
        let registry = Registry::new(cx.root()?);
        for listed in registry.list()? {
            if let Listed::Known(state) = listed
                && state.status == Status::Running
                && let Some(served) = registry.served(&state.id)
            {
                all.insert(state.name, Value::String(served));
            }
        }
    }
    Ok(Value::Object(all))
}

fn host() -> Value {
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy().into_owned();
    let at_least = |major, minor| version(&kernel).is_some_and(|v| v >= (major, minor));
    let root = rustix::process::geteuid().is_root();
    json!({
        "Kernel": kernel,
        "Architecture": uname.machine().to_string_lossy(),
        "User": if root { "root".to_owned() } else { format!("uid {}", rustix::process::geteuid().as_raw()) },
        "FuseDevice": device(),
        "Fusermount": program("fusermount3"),
        "UserNamespaces": user_namespaces(),
        "SubordinateIds": subordinate_ids(),
        "IdMapHelpers": if program("newuidmap") == "no" || program("newgidmap") == "no" { "no" } else { "yes" },
        "Passthrough": if at_least(6, 9) && root { "yes" } else if root { "no: needs Linux 6.9" } else { "no: needs root" },
        "FuseRing": ring(at_least(6, 14)),
        "Cgroups": cgroups(),
        "Seccomp": yes(Path::new("/proc/sys/kernel/seccomp").exists()),
    })
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn device() -> &'static str {
    match access("/dev/fuse", Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => "yes",
        Err(rustix::io::Errno::NOENT) => "no: /dev/fuse is missing (modprobe fuse)",
        Err(_) => "no: /dev/fuse may not be opened (chmod 666 /dev/fuse)",
    }
}

fn program(name: &str) -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    yes(std::env::split_paths(&path).any(|dir| access(dir.join(name), Access::EXEC_OK).is_ok()))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn user_namespaces() -> &'static str {
    if !Path::new("/proc/self/ns/user").exists() {
        "no: the kernel has none"
    } else if number("/proc/sys/user/max_user_namespaces") == Some(0) {
        "no: user.max_user_namespaces is 0"
    } else if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        "for root only: kernel.unprivileged_userns_clone is 0"
    } else if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "restricted: kernel.apparmor_restrict_unprivileged_userns is 1"
    } else {
        "yes"
    }
}

/// How many ids subuid(5) gives this user, by name or number.
fn subordinate_ids() -> String {
    let uid = rustix::process::getuid().as_raw();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
        .ok()
        .flatten();
    let name = user.map_or_else(|| uid.to_string(), |u| u.name);
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let count: u64 = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let count = fields.nth(1)?.parse::<u64>().ok()?;
            (owner == name || owner == uid.to_string()).then_some(count)
        })
        .sum();
    if count == 0 {
        format!("none for {name}")
    } else {
        format!("{count} for {name}")
    }
}

fn ring(kernel_has_it: bool) -> &'static str {
    match fs::read_to_string("/sys/module/fuse/parameters/enable_uring") {
        Ok(text) if matches!(text.trim(), "Y" | "1") => "yes",
        Ok(_) => "off: the fuse module's parameter enable_uring",
        Err(_) if kernel_has_it => "no: the fuse module is not loaded, or built without it",
        Err(_) => "no: needs Linux 6.14",
    }
}

fn cgroups() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else if Path::new("/sys/fs/cgroup/memory").exists() {
        "v1"
    } else {
        "none"
    }
}

fn show(value: &Value, depth: usize, text: &mut String) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(_) => {
                text.push_str(&format!("{indent}{key}:\n"));
                show(value, depth + 1, text);
            }
            Value::String(s) => text.push_str(&format!("{indent}{key}: {s}\n")),
            other => text.push_str(&format!("{indent}{key}: {other}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_of_distributions_parse() {
        assert_eq!(version("6.18.0-rc1"), Some((6, 18)));
        assert_eq!(version("5.15-generic"), Some((5, 15)));
        assert_eq!(version("x"), None);
    }
}
