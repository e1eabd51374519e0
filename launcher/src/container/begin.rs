//! The container's first process, forked before it is known what it is to be.
//!
//! Its id maps are written by two set-user-id programs, which take longer than all that the supervisor
//! does meanwhile. So it is forked and they are started as soon as it is clear that there will be a
//! container at all; the image, the specification and the writable layer are seen to while they run.
//! What the process is to be it hears over the channel (`Begun::tell`).
//!
//! Dropping a [`Begun`] kills the process.

use std::{fs::File, io, io::Write as _, os::fd::AsFd as _};

use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxNamespaceType;
use pellicle_sys::process::{Forked, Kinship, fork};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    ContainerError,
    attend::{self, Process, Signals},
    channel::{Channel, Message},
    idmap::{self, IdMaps, Writing},
    init::{self, Plan},
    signals,
    streams::{self, Attach, Ends},
    supervise::pid_in,
};

/// What has to be known to fork.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// The namespaces it gets.
    pub namespaces: Vec<LinuxNamespaceType>,
    /// It gets a terminal.
    pub tty: bool,
    /// Our standard input goes in.
    pub input: bool,
    /// What comes out goes to our standard output and error.
    pub output: bool,
    /// Standard input stays open even though nothing comes in.
    pub keep_open: bool,
}

/// A container's first process that waits to be told what it is to be, and what it is to be told by.
pub struct Begun {
    pub(super) signals: Signals,
    pub(super) attach: Attach,
    /// Before the process: it is dropped first, so that no helper gets the number of another one.
    pub(super) maps: Writing,
    pub(super) process: Process,
    pub(super) pid: rustix::process::Pid,
    pub(super) channel: Channel,
    pub(super) ends: Option<Ends>,
    pub(super) single_id: bool,
}

impl Begin {
    /// Forks the process and has its id maps begun. To be called while this process has one thread.
    ///
    /// # Errors
    /// [`ContainerError::NoNamespaces`] where they are not to be had; the kernel's; helpers that cannot
    /// be started.
    pub fn fork(&self, maps: &IdMaps) -> Result<Begun, ContainerError> {
        let signals = Signals::catch()?;
        let attach = Attach {
            input: self.input,
            output: self.output,
            keep_open: self.keep_open,
        };
        let prepare = ContainerError::host::<io::Error>;
        let (channel, theirs) = Channel::pair().map_err(prepare("make a socket pair"))?;
        let (streams, ends) = if self.tty {
            (None, None)
        } else {
            let (streams, ends) = streams::pipes(attach).map_err(prepare("make pipes"))?;
            (Some(streams), Some(ends))
        };
        let (own, others): (Vec<_>, Vec<_>) = (self.namespaces.iter().copied())
            .filter(|n| *n != LinuxNamespaceType::Cgroup)
            .partition(|n| init::makes_itself(*n));
        let process = match fork(flags(others), Kinship::Child) {
            Ok(Forked::Child) => {
                // Open here too, it would never be seen to close when the supervisor dies, and a file
                // system on its way to it would never be given up.
                drop(channel);
                let own = CloneFlags::from_bits_truncate(flags(own));
                init::run(own, streams.as_ref(), &theirs)
            }
            Ok(Forked::Parent { pidfd, .. }) => Process::new(pidfd),
            Err(e) => return Err(why_not_forked(e)),
        };
        let pid = pid_in(&process).ok_or_else(|| ContainerError::Host {
            doing: "find the container's process in /proc".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        tracing::debug!("forked");
        // One that is gone by then has told why.
        let writing = maps.begin(pid);
        let writing = writing.map_err(|e| attend::last_words_or(&channel, e))?;
        Ok(Begun {
            signals,
            attach,
            maps: writing,
            process,
            pid,
            channel,
            ends,
            single_id: maps.is_single(),
        })
    }
}

impl Begun {
    /// Kills the process; signals act on this one again.
    ///
    /// # Errors
    /// None that the kernel would give for valid signals.
    pub fn give_up(self) -> Result<(), ContainerError> {
        drop(self);
        signals::unblock_forwarded()
    }

    /// Tells the process what it is to be. It goes on once it hears that the id maps are written.
    pub(super) fn tell(&self, plan: &Plan) -> Result<(), ContainerError> {
        // Of any length, which a packet is not.
        let send = || -> io::Result<()> {
            let mut file = File::from(memfd_create("plan", MemfdFlags::CLOEXEC)?);
            file.write_all(&serde_json::to_vec(plan)?)?;
            // One that has ended is heard of later.
            self.channel.tell(&Message::Plan, Some(file.as_fd()))?;
            Ok(())
        };
        send().map_err(ContainerError::host(
            "describe the container to its process",
        ))
    }
}

fn why_not_forked(e: io::Error) -> ContainerError {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::ENOSPC | libc::EUSERS) => idmap::why_refused(e),
        _ => ContainerError::host("make the container's process")(e),
    }
}

/// The `CLONE_NEW*` bits of namespaces.
pub(super) fn flags(namespaces: impl IntoIterator<Item = LinuxNamespaceType>) -> i32 {
    namespaces.into_iter().fold(0, |all, namespace| {
        all | match namespace {
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            // clone(2) has no bit for it that is not taken.
            LinuxNamespaceType::Time => 0,
        }
    })
}
