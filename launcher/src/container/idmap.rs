//! Which ids of the host the ids in a container are (user_namespaces(7), subuid(5)).
//!
//! As root of the host every id is itself. An ordinary user's container has the user as 0 and the
//! user's subordinate ids from 1 on, which only the set-user-id programs `newuidmap` and
//! `newgidmap` may write. Where those or the ids are missing there is one id, 0, which is the user.

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread::JoinHandle,
};

use rustix::process::{Pid, getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::{ContainerError, cpus};

/// `size` ids from `inside` on are the host's from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First id in the container.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// How the maps are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// By this process, which may map any id.
    Privileged,
    /// By `newuidmap` and `newgidmap`.
    Helpers,
    /// By this process, which may map itself only; `setgroups` is denied then.
    Single,
}

/// The maps of a new container.
#[derive(Clone, Debug)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<Range>,
    /// Groups.
    pub gids: Vec<Range>,
    /// How they are written.
    pub writer: Writer,
    /// Why there is only one id although it was not asked for; to be said once.
    pub fell_back: Option<String>,
}

impl IdMaps {
    /// What this user can have.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn for_this_user(single: bool) -> Result<Self, ContainerError> {
        if single {
            return Ok(Self::single(None));
        }
        if geteuid().is_root() {
            let (uids, gids) = (own_map("uid_map")?, own_map("gid_map")?);
            // As `unshare --map-root-user` leaves it.
            if is_one(&uids) || is_one(&gids) {
                let why = "the user namespace that this runs in has one id only";
                return Ok(Self::single(Some(why.to_owned())));
            }
            return Ok(Self {
                uids: identity(&uids),
                gids: identity(&gids),
                writer: Writer::Privileged,
                fell_back: None,
            });
        }
        let missing = |what: &str| Ok(Self::single(Some(what.to_owned())));
        if helper("newuidmap").is_none() || helper("newgidmap").is_none() {
            return missing("newuidmap and newgidmap are not installed (package uidmap)");
        }
        let user = user_name();
        let uid = geteuid().as_raw();
        let uids = subordinate("/etc/subuid", &user, uid);
        let gids = subordinate("/etc/subgid", &user, uid);
        if uids.is_empty() || gids.is_empty() {
            return missing(&format!(
                "{user} has no subordinate ids in /etc/subuid and /etc/subgid"
            ));
        }
        Ok(Self {
            uids: stacked(uid, &uids),
            gids: stacked(getegid().as_raw(), &gids),
            writer: Writer::Helpers,
            fell_back: None,
        })
    }

    fn single(fell_back: Option<String>) -> Self {
        let one = |outside| {
            vec![Range {
                inside: 0,
                outside,
                size: 1,
            }]
        };
        Self {
            uids: one(geteuid().as_raw()),
            gids: one(getegid().as_raw()),
            writer: Writer::Single,
            fell_back,
        }
    }

    /// Whether every owner but root is unknown in the container.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.writer == Writer::Single
    }

    /// Begins to write the maps of process `pid`. Both helpers run at the same time as each other
    /// and as the caller, which must call [`Writing::finish`].
    ///
    /// # Errors
    /// What the kernel has against the maps; threads that cannot be made.
    pub fn begin(&self, pid: Pid) -> Result<Writing, ContainerError> {
        let mut writing = Writing::default();
        let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let put = |name: &str, text: &str| {
            fs::write(file(name), text).map_err(ContainerError::file("write", file(name)))
        };
        match self.writer {
            Writer::Helpers => {
                writing.begin("newuidmap", pid, &self.uids)?;
                writing.begin("newgidmap", pid, &self.gids)?;
            }
            Writer::Privileged | Writer::Single => {
                if self.writer == Writer::Single {
                    put("setgroups", "deny")?;
                }
                put("uid_map", &text(&self.uids))?;
                put("gid_map", &text(&self.gids))?;
            }
        }
        Ok(writing)
    }
}

/// Maps that are being written.
#[derive(Default)]
pub struct Writing {
    helpers: Vec<JoinHandle<Result<(), ContainerError>>>,
}

impl Writing {
    /// Runs a helper from a thread: starting a program waits for the kernel to have loaded it.
    fn begin(
        &mut self,
        helper: &'static str,
        pid: Pid,
        ranges: &[Range],
    ) -> Result<(), ContainerError> {
        let mut command = command(helper, pid, ranges);
        let cpu = cpus::for_helper(self.helpers.len());
        let run = move || {
            if let Some(cpu) = &cpu {
                cpus::stay_on(cpu);
            }
            run_helper(helper, &mut command)
        };
        let thread = std::thread::Builder::new().name(helper.to_owned());
        let thread = thread
            .spawn(run)
            .map_err(ContainerError::host(format!("make a thread for {helper}")))?;
        self.helpers.push(thread);
        // It begins on this CPU, and leaves it as soon as it is let.
        std::thread::yield_now();
        Ok(())
    }

    /// Waits until the maps are there.
    ///
    /// # Errors
    /// [`ContainerError::IdMap`] with what the helper said.
    pub fn finish(mut self) -> Result<(), ContainerError> {
        for thread in self.helpers.drain(..) {
            let panicked = |_| ContainerError::Host {
                doing: "wait for the id maps".to_owned(),
                source: std::io::Error::other("a thread panicked"),
            };
            thread.join().map_err(panicked)??;
        }
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Only after an error elsewhere: no zombie is left behind.
        for thread in self.helpers.drain(..) {
            let _ = thread.join();
        }
    }
}

fn command(helper_name: &str, pid: Pid, ranges: &[Range]) -> Command {
    let mut command = Command::new(helper(helper_name).unwrap_or_else(|| helper_name.into()));
    let numbers = ranges.iter().flat_map(|r| [r.inside, r.outside, r.size]);
    command
        .arg(pid.to_string())
        .args(numbers.map(|n| n.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn run_helper(helper: &'static str, command: &mut Command) -> Result<(), ContainerError> {
    let mut child = command
        .spawn()
        .map_err(ContainerError::host(format!("start {helper}")))?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // A helper that cannot be read from still has its exit code.
        let _ = stderr.take(4096).read_to_end(&mut said);
    }
    let status = child
        .wait()
        .map_err(ContainerError::host(format!("wait for {helper}")))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(ContainerError::IdMap {
        helper,
        user: user_name(),
        said: match said.trim() {
            "" => status.to_string(),
            text => text.to_owned(),
        },
    })
}

fn helper(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin")])
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The name of the user who runs this, else the number.
fn user_name() -> String {
    let uid = geteuid().as_raw();
    let from_file = fs::read("/etc/passwd").ok().and_then(|passwd| {
        passwd.split(|b| *b == b'\n').find_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let (name, id) = (fields.next()?, fields.nth(1)?);
            (std::str::from_utf8(id).ok()?.parse() == Ok(uid))
                .then(|| String::from_utf8_lossy(name).into_owned())
        })
    });
    // A user from a directory service: asked for only then, for it may mean the network.
    from_file
        .or_else(|| {
            let user = nix::unistd::User::from_uid(uid.into()).ok().flatten()?;
            Some(user.name)
        })
        .unwrap_or_else(|| uid.to_string())
}

fn subordinate(file: &str, user: &str, uid: u32) -> Vec<(u32, u32)> {
    fs::read(file)
        .map(|text| parse_subordinate(&text, user, uid))
        .unwrap_or_default()
}

/// Start and count of each range of `user` in a subuid(5) file, without overlaps.
fn parse_subordinate(text: &[u8], user: &str, uid: u32) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.split(':').map(str::trim);
        let (Some(owner), Some(start), Some(count)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if owner != user && owner.parse() != Ok(uid) {
            continue;
        }
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else {
            continue;
        };
        let Some(end) = start.checked_add(count) else {
            continue;
        };
        let overlaps = ranges
            .iter()
            .any(|(s, c)| start < s.saturating_add(*c) && *s < end);
        if count > 0 && !overlaps {
            ranges.push((start, count));
        }
    }
    // The kernel takes 340 lines; newuidmap refuses long argument lists before that.
    ranges.truncate(100);
    ranges
}

/// `own` at 0, and `ranges` one behind the other from 1 on.
fn stacked(own: u32, ranges: &[(u32, u32)]) -> Vec<Range> {
    let mut map = vec![Range {
        inside: 0,
        outside: own,
        size: 1,
    }];
    let mut inside = 1_u32;
    for (outside, size) in ranges {
        let size = (*size).min(u32::MAX - inside);
        if size == 0 {
            break;
        }
        map.push(Range {
            inside,
            outside: *outside,
            size,
        });
        inside = inside.saturating_add(size);
    }
    map
}

fn identity(own: &[Range]) -> Vec<Range> {
    own.iter()
        .map(|r| Range {
            inside: r.inside,
            outside: r.inside,
            size: r.size,
        })
        .collect()
}

fn own_map(name: &str) -> Result<Vec<Range>, ContainerError> {
    let path = format!("/proc/self/{name}");
    let text = fs::read_to_string(&path).map_err(ContainerError::file("read", path))?;
    Ok(parse_map(&text))
}

fn parse_map(text: &str) -> Vec<Range> {
    text.lines()
        .filter_map(|line| {
            let mut n = line.split_whitespace().map(str::parse::<u32>);
            Some(Range {
                inside: n.next()?.ok()?,
                outside: n.next()?.ok()?,
                size: n.next()?.ok()?,
            })
        })
        .collect()
}

fn is_one(ranges: &[Range]) -> bool {
    ranges.iter().map(|r| u64::from(r.size)).sum::<u64>() == 1
}

fn text(ranges: &[Range]) -> String {
    ranges
        .iter()
        .map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size))
        .collect()
}

/// What to do where a limit on namespaces is reached.
pub(super) const LIMITS: &str =
    "see the limits in /proc/sys/user/, and whether namespaces are nested more than 32 deep";

/// What refused namespaces are due to, and what to do.
#[must_use]
pub fn why_refused(source: std::io::Error) -> ContainerError {
    let setting = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .and_then(|t| t.trim().parse::<i64>().ok())
    };
    // Made together with the user namespace, but counted outside of it.
    let kind = ["mnt", "pid"].into_iter().find(|kind| {
        source.raw_os_error() == Some(libc::ENOSPC)
            && setting(&format!("/proc/sys/user/max_{kind}_namespaces")) == Some(0)
    });
    let (why, next) = if kind.is_some() {
        ("its limit is 0", LIMITS)
    } else if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        (
            "user.max_user_namespaces is 0",
            "as root: `sysctl -w user.max_user_namespaces=15000`",
        )
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        (
            "kernel.unprivileged_userns_clone is 0",
            "as root: `sysctl -w kernel.unprivileged_userns_clone=1`",
        )
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && !geteuid().is_root()
    {
        (
            "AppArmor keeps them from programs without a profile",
            "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give pellicle an AppArmor profile with `userns,`",
        )
    } else if source.raw_os_error() == Some(libc::ENOSPC) {
        ("a limit on namespaces is reached", LIMITS)
    } else if source.raw_os_error() == Some(libc::EPERM) {
        (
            "something around this process forbids them",
            "inside another container, give that one a seccomp profile that allows clone with CLONE_NEWUSER (docker: --security-opt seccomp=unconfined), and leave any chroot",
        )
    } else {
        (
            "unknown cause",
            "`pellicle info` tells what this host offers",
        )
    };
    ContainerError::NoNamespaces {
        kind: kind.unwrap_or("user"),
        why: why.to_owned(),
        next,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_those_of_the_user_by_name_or_number() {
        let file = b"alice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:bad:1\n\
            alice:100010:5\nalice:4294967290:100\nalice:7\n\xff:1:1\nalice:400000:0\n";
        assert_eq!(
            parse_subordinate(file, "alice", 1000),
            [(100_000, 65536), (300_000, 10)]
        );
        assert_eq!(parse_subordinate(file, "carol", 5), []);
        assert_eq!(parse_subordinate(b"", "alice", 0), []);
    }

    #[test]
    fn the_user_is_zero_and_subordinate_ids_follow_without_gaps() {
        let map = stacked(1000, &[(100_000, 65536), (300_000, 10)]);
        assert_eq!(text(&map), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
    }

    #[test]
    fn root_maps_every_id_it_has_to_itself() {
        let own = parse_map("         0          0 4294967295\n");
        assert_eq!(text(&identity(&own)), "0 0 4294967295\n");
        let nested = parse_map("0 1000 1\n1 100000 65536\n");
        assert_eq!(text(&identity(&nested)), "0 0 1\n1 1 65536\n");
        assert!(!is_one(&own) && !is_one(&nested) && is_one(&parse_map("0 1000 1\n")));
    }
}
