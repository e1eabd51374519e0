//! Why something about a container could not be done.

use std::{io, path::PathBuf};

use crate::error::hint::of_limit;

/// An error about a container: names the object and the cause; [`ContainerError::hint`] tells the
/// next step.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The host refused something about a file of ours.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done, as `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The host refused something that is not about a file.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: String,
        /// The host's answer.
        source: io::Error,
    },
    /// No container has that name or id.
    #[error("no container is named {0:?}, and no id starts so")]
    NotFound(String),
    /// More than one id starts so.
    #[error("{0:?} is the start of more than one container's id")]
    Ambiguous(String),
    /// The name is another container's.
    #[error("the name {name:?} belongs to container {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// The short id of who has it.
        holder: String,
    },
    /// It is running, and must not be.
    #[error("container {0} is running")]
    Running(String),
    /// It is not running, and must be.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// Another command is working on it at this moment.
    #[error("container {0} is in use by another command")]
    Busy(String),
    /// A file of the container contradicts itself.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// An option or a value of the image makes no sense.
    #[error("{what} {value:?}: {why}")]
    Invalid {
        /// What it is, as `--memory`.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image says nothing to run, and neither does the command line.
    #[error("the image names no command, and none was given")]
    NoCommand,
    /// The kernel made no namespace of that kind.
    #[error("the kernel does not let this user make a {kind} namespace: {why}")]
    NoNamespaces {
        /// As `/proc/sys/user/` has it: `user`, `mnt`.
        kind: &'static str,
        /// What switched them off, where it is known.
        why: String,
        /// The next step.
        next: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap` refused.
    #[error("{helper} could not map the subordinate ids of {user}: {said}")]
    IdMap {
        /// The program.
        helper: &'static str,
        /// Whose ids.
        user: String,
        /// What it wrote on standard error.
        said: String,
    },
    /// A limit that cannot be set.
    #[error("cannot limit {what}: {why}")]
    Limit {
        /// What was to be limited, as `memory`.
        what: &'static str,
        /// Why not.
        why: String,
        /// The next step.
        next: String,
    },
    /// The container's first process could not be prepared or executed; what it said.
    #[error("{message}")]
    Child {
        /// The whole message.
        message: String,
        /// The next step, where one is known.
        next: Option<String>,
        /// 125, 126 or 127, as docker has them.
        code: u8,
    },
    /// The writable layer or the tree.
    #[error(transparent)]
    Union(#[from] pellicle_union::Error),
    /// The writable layer.
    #[error(transparent)]
    Upper(#[from] pellicle_upper::UpperError),
    /// The store.
    #[error(transparent)]
    Store(#[from] pellicle_store::StoreError),
    /// The file system's transport.
    #[error(transparent)]
    Fuse(#[from] pellicle_fuse::FuseError),
}

impl ContainerError {
    /// Shorthand for [`ContainerError::Host`], to be given to `map_err`.
    pub(crate) fn host<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |e| Self::Host {
            doing: doing.into(),
            source: e.into(),
        }
    }

    /// Shorthand for [`ContainerError::File`], to be given to `map_err`.
    pub(crate) fn file<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        move |e| Self::File {
            doing,
            path: path.into(),
            source: e.into(),
        }
    }

    pub(crate) fn invalid(
        what: &'static str,
        value: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            what,
            value: value.into(),
            why: why.into(),
        }
    }

    /// The next step that is suggested.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "`pellicle ps -a` lists the containers".to_owned(),
            Self::Ambiguous(_) => {
                "give more digits; `pellicle ps -a --no-trunc` has them all".to_owned()
            }
            Self::NameTaken { name, .. } => {
                format!("remove that container with `pellicle rm {name}`, or choose another name")
            }
            Self::Running(id) => format!("stop it with `pellicle stop {id}`, or give --force"),
            Self::NotRunning(id) => format!("start it with `pellicle start {id}`"),
            Self::Damaged { .. } => {
                "`pellicle rm --force` removes a container whatever state it is in".to_owned()
            }
            Self::Upper(pellicle_upper::UpperError::Corrupt { .. })
            | Self::Union(pellicle_union::Error::Upper(pellicle_upper::UpperError::Corrupt {
                ..
            })) => {
                "`pellicle store verify` tells what is damaged, and what --repair would do about it"
                    .to_owned()
            }
            Self::NoCommand => "give a command after the image's name".to_owned(),
            Self::NoNamespaces { next, .. } => (*next).to_owned(),
            Self::IdMap { user, .. } => format!(
                "run with --single-id, or give {user} subordinate ids: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` as root (subuid(5))"
            ),
            Self::Limit { next, .. } => next.clone(),
            Self::Child { next, .. } => return next.clone(),
            Self::Host { source, .. } | Self::Fuse(pellicle_fuse::FuseError::Serve { source }) => {
                return source.raw_os_error().and_then(of_limit).map(str::to_owned);
            }
            Self::File { .. }
            | Self::Busy(_)
            | Self::Invalid { .. }
            | Self::Union(_)
            | Self::Upper(_)
            | Self::Store(_)
            | Self::Fuse(_) => return None,
        })
    }

    /// The exit code that this error demands of `run`, `start -a` and `exec`, if it does.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Child { code, .. } => Some(*code),
            _ => None,
        }
    }
}
