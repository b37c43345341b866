//! What can go wrong between a client and a server, and what the user can do about it.
//!
//! The text of a server's error answer is passed on unchanged; everything else says what was attempted,
//! on what, and why it failed. Never drops the cause of a failure.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backstop_format::FormatError;
use backstop_outgoing::proxy::{ProxyAddressError, ProxyError};

use crate::connection::trust::UntrustedCertificate;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Why a client operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No TCP connection could be made.
    #[error("unable to connect to '{server}' - {reason}")]
    Connect {
        /// `host:port` that was tried.
        server: String,
        /// What the operating system said for each address.
        reason: String,
    },
    /// The proxy refused or broke the connection.
    #[error("unable to connect to '{server}' through proxy '{proxy}' - {reason}")]
    Proxy {
        /// `host:port` of the backup server.
        server: String,
        /// `host:port` of the proxy.
        proxy: String,
        /// What went wrong.
        reason: String,
    },
    /// The proxy setting cannot be understood.
    #[error(
        "invalid proxy address in ALL_PROXY - {0} (expected [http://][user:password@]host[:port])"
    )]
    ProxyAddress(&'static str),
    /// The TLS handshake failed for another reason than trust.
    #[error("TLS connection to '{server}' failed - {reason}")]
    Tls {
        /// `host:port` of the server.
        server: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The server's certificate is neither signed by a known authority nor pinned.
    #[error("{0}")]
    Untrusted(Box<UntrustedCertificate>),
    /// An API token was given without its secret.
    #[error("API token secret must be provided!")]
    MissingTokenSecret,
    /// No password, no valid cached ticket and nobody to ask.
    #[error(
        "no password and no valid ticket for '{user}' - set PBS_PASSWORD or run the login command"
    )]
    MissingPassword {
        /// The user who wants to log in.
        user: String,
    },
    /// The user has a second factor, and nobody can be asked for it here.
    #[error("'{user}' needs a second factor to log in: {needed} - {reason}")]
    SecondFactor {
        /// The user who wants to log in.
        user: String,
        /// What the server asks for.
        needed: String,
        /// Why it cannot be given here, and what to do.
        reason: &'static str,
    },
    /// The server answered with an error status; the text is the server's.
    #[error("{}", status_text(.method, .path, *.status, .message))]
    Status {
        /// Request method.
        method: String,
        /// Request path.
        path: String,
        /// HTTP status code.
        status: u16,
        /// Body of the answer, trimmed.
        message: String,
    },
    /// A request could not be sent or its answer not be read.
    #[error("{method} {path} failed - {reason}")]
    Request {
        /// Request method.
        method: String,
        /// Request path.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The server took too long.
    #[error("{method} {path} failed - no answer from '{server}' within {seconds} seconds")]
    Timeout {
        /// Request method.
        method: String,
        /// Request path.
        path: String,
        /// `host:port` of the server.
        server: String,
        /// The limit.
        seconds: u64,
    },
    /// The session's connection is gone; every later request fails with the same reason.
    #[error("connection to '{server}' lost - {reason}")]
    ConnectionLost {
        /// `host:port` of the server.
        server: String,
        /// First cause.
        reason: String,
    },
    /// The server's answer does not follow the protocol.
    #[error("unexpected answer of the server to {request} - {reason}")]
    Protocol {
        /// Which request.
        request: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Data from the datastore is damaged, or encrypted with another key.
    #[error("{what}: {source}")]
    Data {
        /// Which archive, chunk or file.
        what: String,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// Data from the datastore contradicts the manifest or the index.
    #[error("{what}: {reason}")]
    Mismatch {
        /// Which archive, chunk or file.
        what: String,
        /// The contradiction.
        reason: String,
    },
    /// The key at hand is not the one of the backup.
    #[error(
        "wrong encryption key - the backup was made with key {expected}, the key given has fingerprint {given}"
    )]
    WrongKey {
        /// Fingerprint recorded in the manifest.
        expected: String,
        /// Fingerprint of the key at hand.
        given: String,
    },
    /// The backup is encrypted and no key was given.
    #[error(
        "missing encryption key - the backup was made with key {expected}; pass it with --keyfile"
    )]
    MissingKey {
        /// Fingerprint recorded in the manifest.
        expected: String,
    },
    /// The snapshot does not contain the archive.
    #[error("the backup does not contain an archive called '{name}'")]
    NoSuchArchive {
        /// Name asked for.
        name: String,
    },
    /// The request of the caller makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A local file could not be read or written.
    #[error("{what} '{path}' failed - {source}")]
    File {
        /// What was attempted, e.g. `reading`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Reading the source or writing the target of an archive failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An archive could not be backed up or restored.
    #[error("{action} '{archive}' failed - {source}")]
    Archive {
        /// `backup of` or `restore of`.
        action: &'static str,
        /// The archive's name.
        archive: String,
        /// Why.
        #[source]
        source: Box<ClientError>,
    },
    /// Walking or writing a directory tree failed.
    #[error(transparent)]
    Tree(#[from] crate::archive::ArchiveError),
    /// A failure that several waiters share.
    #[error("{0}")]
    Shared(Arc<ClientError>),
    /// The operation was given up because another part of it failed or it was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<ProxyError> for ClientError {
    fn from(error: ProxyError) -> Self {
        Self::Proxy {
            server: error.server,
            proxy: error.proxy,
            reason: error.reason,
        }
    }
}

impl From<ProxyAddressError> for ClientError {
    fn from(error: ProxyAddressError) -> Self {
        Self::ProxyAddress(error.0)
    }
}

impl ClientError {
    /// HTTP status of the server's answer, if the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Archive { source, .. } => source.status(),
            Self::Shared(inner) => inner.status(),
            _ => None,
        }
    }

    /// Whether the same request may succeed when it is tried again later: network trouble, not a refusal.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Timeout { .. }
            | Self::ConnectionLost { .. }
            | Self::Request { .. } => true,
            Self::Status { status, .. } => matches!(status, 502..=504),
            Self::Archive { source, .. } => source.is_transient(),
            Self::Shared(inner) => inner.is_transient(),
            _ => false,
        }
    }

    /// Adds the archive's name to a failure.
    pub(crate) fn in_archive(self, action: &'static str, archive: &str) -> Self {
        Self::Archive {
            action,
            archive: archive.to_owned(),
            source: Box::new(self),
        }
    }

    pub(crate) fn data(what: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        let what = what.into();
        move |source| Self::Data { what, source }
    }

    pub(crate) fn mismatch(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Mismatch {
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// For APIs that can only pass on I/O errors, e.g. `Read` and `ReadAt`.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// The server's text when there is one, as stock prints it; otherwise the request and status.
fn status_text(method: &str, path: &str, status: u16, message: &str) -> String {
    if message.is_empty() {
        format!("{method} {path}: server answered with HTTP status {status}")
    } else {
        message.to_owned()
    }
}
