//! Why something with a registry could not be done.
//!
//! No text here ever holds a password, a token or the query of an address, which may hold one.

use std::{io, path::PathBuf};

use pellicle_store::{StoreError, import::ImportError};
use pellicle_union::CommitError;

use super::TooSlow;
use crate::image::ImageError;

/// Why something with a registry could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer was to be had.
    #[error("cannot reach the registry {host}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the transport says.
        source: TransportError,
    },
    /// The connection failed after the registry had answered before, as often as it was tried.
    #[error("cannot {doing}: the connection to {host} failed")]
    Broken {
        /// What was being done, with its object.
        doing: String,
        /// Host and port.
        host: String,
        /// What the transport says.
        source: TransportError,
    },
    /// The registry wants other credentials, or any.
    #[error("cannot {doing}: {host} refuses it {}{}", if *anonymous { "without credentials" } else { "with the credentials there are" }, colon(detail))]
    Denied {
        /// What was being done, with its object.
        doing: String,
        /// Host and port.
        host: String,
        /// The name that a login is stored under.
        login: String,
        /// No credentials were sent.
        anonymous: bool,
        /// What the registry says.
        detail: String,
    },
    /// The registry has no such thing.
    #[error("cannot {doing}: {host} has none{}", colon(detail))]
    NotFound {
        /// What was being done, with its object.
        doing: String,
        /// Host and port.
        host: String,
        /// What the registry says.
        detail: String,
    },
    /// An image is not in the store, and cannot be pulled either.
    #[error("no image {name:?} in the store, and it cannot be pulled")]
    NotHere {
        /// What was asked for.
        name: String,
        /// Why not.
        source: Box<RegistryError>,
    },
    /// Any other answer that is none of success.
    #[error("cannot {doing}: {host} answers {status}{}", colon(detail))]
    Status {
        /// What was being done, with its object.
        doing: String,
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says.
        detail: String,
    },
    /// What the registry gives contradicts what names it, itself, or a limit.
    #[error("{what} cannot be used: {why}")]
    Invalid {
        /// What it is.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// No image is for this machine.
    #[error("no image for {wanted} in {what}; there are: {found}")]
    Platform {
        /// The platform asked for.
        wanted: String,
        /// Where.
        what: String,
        /// The platforms there are.
        found: String,
    },
    /// A file of settings, certificates or credentials is of no use.
    #[error("cannot use {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The host failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A credential helper failed.
    #[error("the credential helper {program} failed: {why}")]
    Helper {
        /// Its name.
        program: String,
        /// What it said.
        why: String,
    },
    /// The caller asked to stop.
    #[error("interrupted; what was complete is kept, and the same command goes on from there")]
    Cancelled,
    /// A layer could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A layer could not be read out of the store.
    #[error(transparent)]
    Layer(#[from] CommitError),
    /// An image of the store is damaged or the list of them cannot be changed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `: detail`, or nothing.
fn colon(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The name has no address.
    #[error("there is no host of that name, or no name server answers")]
    NoSuchHost,
    /// Nothing came for so long.
    #[error("nothing came for {seconds} seconds while {doing}")]
    Stalled {
        /// What was waited for.
        doing: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// Hardly anything came for so long.
    #[error(transparent)]
    TooSlow(TooSlow),
    /// A certificate is not believed.
    #[error("its certificate is not trusted ({0})")]
    Certificate(String),
    /// The other side wants a certificate of this one, or another.
    #[error("it wants a certificate of this side, and does not take what it is shown ({0})")]
    CertificateWanted(String),
    /// The transport was cut or refused.
    #[error(transparent)]
    Io(io::Error),
    /// It ended before what was announced had come.
    #[error("it ended after {got} of {announced} bytes")]
    CutOff {
        /// Bytes that came.
        got: u64,
        /// Bytes that were to come.
        announced: u64,
    },
    /// What came is not HTTP, or breaks its rules.
    #[error("{0}")]
    Protocol(String),
}

impl RegistryError {
    pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(super) fn io(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// The next step to suggest.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotHere { source, .. } => return source.hint(),
            Self::Denied { login, .. } => format!(
                "check the name; a private repository needs `pellicle login {login}` with a user who may do this"
            ),
            Self::Unreachable {
                source: TransportError::Certificate(_),
                host,
            } => format!(
                "put the registry's CA certificate (ca.crt) into /etc/containers/certs.d/{host}/ or give its directory with --cert-dir; --tls-verify=false trusts anyone"
            ),
            Self::Unreachable {
                source: TransportError::CertificateWanted(_),
                host,
            } => format!(
                "put the certificate and its key (client.cert, client.key) into /etc/containers/certs.d/{host}/ or give their directory with --cert-dir"
            ),
            Self::Unreachable { .. } => "check the name and the network; a registry that speaks plain HTTP needs --tls-verify=false, or `insecure = true` in registries.conf".to_owned(),
            Self::Broken { .. } => "run the same command again: it goes on from what is complete".to_owned(),
            Self::NotFound { .. } => "check the name and its tag".to_owned(),
            Self::Platform { .. } => "choose one of these with --platform".to_owned(),
            Self::Status { status: 429, .. } => "wait, or log in: many registries allow more to those they know".to_owned(),
            _ => return None,
        })
    }
}
