//! The options of `-o`, one by one.
//!
//! Of an option that comes twice the last counts, as everywhere in mounting: that is how defaults
//! of a configuration file are overridden. fuse-overlayfs 1.10 knows fewer of these than it
//! documents, and says `unknown argument ignored` of the rest; here those that libfuse means
//! something by are heeded (`max_threads`, `clone_fd`, `fsname`, `rw`), since they say what the
//! user wants and cannot break who did without.

use std::path::PathBuf;

use std::ffi::OsStr;

use pellicle_fuse::{IdMap, IdRange, MountOptions, Opens, View};

use crate::{
    arguments::path,
    error::UsageError,
    mapping,
    request::{Audience, Invocation, Request, Runner, StatIn, UpperKind, UpperRequest},
    syntax::{self, Word},
};

/// The name of the program, which mounts are named by.
pub(crate) const PROGRAM: &str = "pellicle-overlay";

/// What was read so far.
#[derive(Debug)]
pub(crate) struct Options {
    runner: Runner,
    lower: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    kind: Option<UpperKind>,
    uids: Ids,
    gids: Ids,
    squash_to_root: bool,
    static_nlink: bool,
    no_acl: bool,
    no_xattrs: bool,
    stat_in: StatIn,
    user_marks: bool,
    volatile: bool,
    fsync: bool,
    allow_other: bool,
    allow_root: bool,
    fs_name: Option<String>,
    mount: MountOptions,
    threads: Option<usize>,
    clone_fd: bool,
    opens: Opens,
    foreground: bool,
    debug: bool,
    ignored: Vec<String>,
}

/// What was said of users, or of groups.
#[derive(Debug, Default)]
struct Ids {
    ranges: Vec<IdRange>,
    squash: Option<u32>,
}

impl Options {
    pub(crate) fn new(runner: Runner) -> Self {
        Self {
            runner,
            lower: Vec::new(),
            upper: None,
            work: None,
            kind: None,
            uids: Ids::default(),
            gids: Ids::default(),
            squash_to_root: false,
            static_nlink: false,
            no_acl: false,
            no_xattrs: false,
            stat_in: StatIn::default(),
            user_marks: false,
            volatile: false,
            fsync: true,
            allow_other: false,
            allow_root: false,
            fs_name: None,
            mount: MountOptions {
                subtype: PROGRAM.to_owned(),
                no_suid: !runner.root,
                no_atime: true,
                ..MountOptions::default()
            },
            threads: None,
            clone_fd: false,
            opens: Opens::default(),
            foreground: false,
            debug: false,
            ignored: Vec::new(),
        }
    }

    pub(crate) fn foreground(&mut self) {
        self.foreground = true;
    }

    pub(crate) fn debug(&mut self) {
        self.debug = true;
        self.foreground = true;
    }

    pub(crate) fn single_threaded(&mut self) {
        self.threads = Some(1);
    }

    /// Passes an argument over.
    pub(crate) fn ignore(&mut self, text: &[u8]) {
        self.ignored
            .push(String::from_utf8_lossy(text).into_owned());
    }

    /// Reads the text behind one `-o`.
    pub(crate) fn read(&mut self, text: &[u8]) -> Result<(), UsageError> {
        for word in syntax::words(text) {
            let known = self.layers(&word)?
                || self.shown(&word)?
                || self.kept(&word)?
                || self.served(&word)?
                || self.mounted(&word)
                || means_nothing(&word)?;
            if !known {
                self.ignore(word.text);
            }
        }
        Ok(())
    }

    /// What the tree is made of.
    fn layers(&mut self, word: &Word<'_>) -> Result<bool, UsageError> {
        match word.key {
            b"lowerdir" => {
                let value = value(word, "lowerdir", "/image/2:/image/1")?;
                self.lower = syntax::list(value).into_iter().map(path).collect();
            }
            b"upperdir" => {
                let value = value(word, "upperdir", "/container/diff")?;
                self.upper = Some(path(syntax::unescape(value)));
            }
            b"workdir" => {
                let value = value(word, "workdir", "/container/work")?;
                self.work = Some(path(syntax::unescape(value)));
            }
            b"upper" => {
                self.kind = Some(match value(word, "upper", "dir")? {
                    b"dir" => UpperKind::Directory,
                    b"journal" => UpperKind::Journal,
                    _ => return Err(bad(word, "upper", "dir or journal")),
                });
            }
            b"redirect_dir" => {
                if value(word, "redirect_dir", "off")? != b"off" {
                    return Err(bad(
                        word,
                        "redirect_dir",
                        "only off, as fuse-overlayfs does: lower directories are renamed without",
                    ));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What of it is shown how.
    fn shown(&mut self, word: &Word<'_>) -> Result<bool, UsageError> {
        match word.key {
            b"uidmapping" => self.uids.ranges = ranges(word, "uidmapping")?,
            b"gidmapping" => self.gids.ranges = ranges(word, "gidmapping")?,
            b"squash_to_root" => self.squash_to_root = true,
            b"squash_to_uid" => self.uids.squash = squash(word, "squash_to_uid")?,
            b"squash_to_gid" => self.gids.squash = squash(word, "squash_to_gid")?,
            b"static_nlink" => self.static_nlink = true,
            b"noacl" => self.no_acl = true,
            b"noxattrs" => self.no_xattrs = switch(word, "noxattrs")?,
            b"xino" => {
                // Inode numbers are 64 bits, one for each inode and stable, whatever is asked.
                let value = value(word, "xino", "auto")?;
                if ![b"on".as_slice(), b"off", b"auto"].contains(&value) {
                    return Err(bad(word, "xino", "on, off or auto"));
                }
            }
            // Numbers are given densely from 1, so they fit.
            b"ino32_t" => (),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What of it is kept how.
    fn kept(&mut self, word: &Word<'_>) -> Result<bool, UsageError> {
        match word.key {
            b"volatile" => self.volatile = true,
            b"userxattr" if word.value.is_none() => self.user_marks = true,
            b"fsync" => self.fsync = switch(word, "fsync")?,
            b"xattr_permissions" => {
                self.stat_in = match value(word, "xattr_permissions", "2")? {
                    b"0" => StatIn::Inode,
                    b"1" => {
                        return Err(UsageError::NotOurs {
                            option: "xattr_permissions=1",
                            why: "2 does the same by an attribute that podman and others read too",
                        });
                    }
                    b"2" => StatIn::Attribute,
                    _ => return Err(bad(word, "xattr_permissions", "0 or 2")),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How it is served.
    fn served(&mut self, word: &Word<'_>) -> Result<bool, UsageError> {
        match word.key {
            b"debug" => self.debug(),
            b"clone_fd" => self.clone_fd = true,
            b"opens" => {
                const WANTED: &str = "silent, answered or passthrough";
                self.opens = match value(word, "opens", "silent")? {
                    b"silent" => Opens::Silent,
                    b"answered" => Opens::Answered,
                    b"passthrough" => Opens::Passthrough,
                    _ => return Err(bad(word, "opens", WANTED)),
                };
            }
            b"max_threads" => {
                let threads = number(word, "max_threads", "a number from 1 to 256")?;
                self.threads = match usize::try_from(threads) {
                    Ok(n @ 1..=256) => Some(n),
                    _ => return Err(bad(word, "max_threads", "a number from 1 to 256")),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How it is mounted.
    fn mounted(&mut self, word: &Word<'_>) -> bool {
        let mount = &mut self.mount;
        match (word.key, word.value) {
            (b"fsname", Some(name)) => {
                let name = syntax::unescape(name);
                self.fs_name = Some(String::from_utf8_lossy(&name).into_owned());
            }
            (b"subtype", Some(name)) if !name.is_empty() => {
                mount.subtype = String::from_utf8_lossy(&syntax::unescape(name)).into_owned();
            }
            (_, Some(_)) => return false,
            (b"allow_other", None) => self.allow_other = true,
            (b"allow_root", None) => self.allow_root = true,
            (b"ro", None) => mount.read_only = true,
            (b"rw", None) => mount.read_only = false,
            (b"suid", None) => mount.no_suid = false,
            (b"nosuid", None) => mount.no_suid = true,
            (b"dev", None) => mount.devices = true,
            (b"nodev", None) => mount.devices = false,
            (b"exec", None) => mount.no_exec = false,
            (b"noexec", None) => mount.no_exec = true,
            (b"atime", None) => mount.no_atime = false,
            (b"noatime", None) => mount.no_atime = true,
            (b"diratime", None) => mount.no_dir_atime = false,
            (b"nodiratime", None) => mount.no_dir_atime = true,
            (b"sync", None) => mount.sync = true,
            (b"async", None) => mount.sync = false,
            (b"dirsync", None) => mount.dir_sync = true,
            _ => return false,
        }
        true
    }

    /// All arguments were read.
    pub(crate) fn finish(
        self,
        source: Option<&OsStr>,
        mountpoint: PathBuf,
    ) -> Result<Invocation, UsageError> {
        if self.lower.is_empty() {
            return Err(UsageError::NoLower);
        }
        let upper = self.upper_request()?;
        let audience = match (self.allow_other, self.allow_root) {
            (true, true) => return Err(contradiction("allow_other", "allow_root")),
            (false, true) => Audience::OwnerAndRoot,
            (true, false) => Audience::All,
            // Containers have users other than their root.
            (false, false) if self.runner.root => Audience::All,
            (false, false) => Audience::Owner,
        };
        let map = |ids: Ids, overflow| IdMap {
            ranges: ids.ranges,
            squash: ids.squash.or(self.squash_to_root.then_some(0)),
            overflow,
        };
        let (overflow_uid, overflow_gid) = self.runner.overflow;
        let named = source.filter(|source| *source != "none");
        let fs_name = self
            .fs_name
            .or_else(|| named.map(|source| source.to_string_lossy().into_owned()))
            .unwrap_or_else(|| PROGRAM.to_owned());
        let mount = MountOptions {
            fs_name,
            read_only: self.mount.read_only || upper.is_none(),
            allow_other: audience != Audience::Owner,
            ..self.mount
        };
        let request = Request {
            lower: self.lower,
            upper,
            mountpoint,
            mount,
            audience,
            view: View {
                uids: map(self.uids, overflow_uid),
                gids: map(self.gids, overflow_gid),
                static_nlink: self.static_nlink,
                no_acl: self.no_acl,
                no_xattrs: self.no_xattrs,
            },
            stat_in: self.stat_in,
            user_marks: self.user_marks,
            fsync: self.fsync && !self.volatile,
            threads: self.threads,
            clone_fd: self.clone_fd,
            opens: self.opens,
            foreground: self.foreground,
            debug: self.debug,
        };
        Ok(Invocation::Mount {
            request: Box::new(request),
            ignored: self.ignored,
        })
    }

    fn upper_request(&self) -> Result<Option<UpperRequest>, UsageError> {
        let kind = self.kind.unwrap_or(UpperKind::Directory);
        let Some(dir) = self.upper.clone() else {
            return match self.kind {
                Some(_) => Err(UsageError::NoValue {
                    option: "upperdir",
                    example: "/container/diff",
                }),
                None => Ok(None),
            };
        };
        if kind == UpperKind::Directory && self.work.is_none() {
            return Err(UsageError::NoWork { upper: dir });
        }
        if kind == UpperKind::Journal && self.stat_in != StatIn::Inode {
            return Err(contradiction("upper=journal", "xattr_permissions"));
        }
        Ok(Some(UpperRequest {
            kind,
            dir,
            work: self.work.clone(),
        }))
    }
}

/// Whether the option is one that fuse-overlayfs or mount(8) takes, and that has nothing to
/// change here. Its value is checked all the same.
fn means_nothing(word: &Word<'_>) -> Result<bool, UsageError> {
    match (word.key, word.value) {
        // Nothing changes behind the server, so what the kernel keeps never grows old.
        (b"timeout", _) => {
            let seconds = String::from_utf8_lossy(value(word, "timeout", "60")?);
            match seconds.parse::<f64>() {
                Ok(seconds) if seconds >= 0.0 => (),
                _ => return Err(bad(word, "timeout", "seconds, 0 or more")),
            }
        }
        (b"max_idle_threads", _) => {
            number(word, "max_idle_threads", "a number")?;
        }
        (b"threaded", _) => {
            switch(word, "threaded")?;
        }
        (b"writeback", _) => {
            switch(word, "writeback")?;
        }
        (b"fast_ino" | b"fast_ino_check", _) => {
            switch(word, "fast_ino")?;
        }
        // A label is the kernel's to set, and it takes none for FUSE in mounts like these.
        (b"context" | b"plugins" | b"max_write", _) => (),
        (b"remount", None) => {
            return Err(UsageError::NotOurs {
                option: "remount",
                why: "change the flags of a mount with `mount -i -o remount,... DIR`",
            });
        }
        (
            b"default_permissions"
            | b"kernel_cache"
            | b"splice_read"
            | b"splice_write"
            | b"splice_move"
            | b"norelatime"
            | b"relatime"
            | b"nostrictatime",
            None,
        ) => (),
        // For mount(8) and fstab(5) alone.
        (
            b"defaults" | b"auto" | b"noauto" | b"user" | b"nouser" | b"users" | b"_netdev"
            | b"nofail",
            None,
        ) => (),
        (key, _) if key.starts_with(b"x-") || key == b"comment" => (),
        _ => return Ok(false),
    }
    Ok(true)
}

fn value<'a>(
    word: &Word<'a>,
    option: &'static str,
    example: &'static str,
) -> Result<&'a [u8], UsageError> {
    word.value
        .filter(|value| !value.is_empty())
        .ok_or(UsageError::NoValue { option, example })
}

fn bad(word: &Word<'_>, option: &'static str, wanted: &'static str) -> UsageError {
    UsageError::Value {
        option,
        value: String::from_utf8_lossy(word.value.unwrap_or_default()).into_owned(),
        wanted,
    }
}

fn contradiction(one: &str, other: &str) -> UsageError {
    UsageError::Contradiction {
        one: one.to_owned(),
        other: other.to_owned(),
    }
}

fn number(word: &Word<'_>, option: &'static str, wanted: &'static str) -> Result<i64, UsageError> {
    let value = value(word, option, "1")?;
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad(word, option, wanted))
}

/// 0 is off, every other number is on.
fn switch(word: &Word<'_>, option: &'static str) -> Result<bool, UsageError> {
    Ok(number(word, option, "0 or 1")? != 0)
}

/// An id to show for all; -1 is none.
fn squash(word: &Word<'_>, option: &'static str) -> Result<Option<u32>, UsageError> {
    const WANTED: &str = "an id from 0 to 4294967294, or -1 for none";
    match number(word, option, WANTED)? {
        -1 => Ok(None),
        id => match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(Some(id)),
            _ => Err(bad(word, option, WANTED)),
        },
    }
}

fn ranges(word: &Word<'_>, option: &'static str) -> Result<Vec<IdRange>, UsageError> {
    let value = value(word, option, "0:100000:65536")?;
    mapping::parse(value).map_err(|why| UsageError::Mapping {
        option,
        value: String::from_utf8_lossy(value).into_owned(),
        why,
    })
}
