//! A monitor: a push URL, and what it watches.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use backstop_types::{BackupGroup, DatastoreName, Namespace};
use serde::{Deserialize, Serialize};

use crate::binding::{Binding, BindingError};
use crate::event::{Event, Outcome};
use crate::receiver::{Receiver, UrlError, check_url, shown_server};

/// Why a monitor makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// What it watches.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// Its URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A name in it.
    #[error("{what} '{value}' is malformed")]
    Name {
        /// Which property.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// Something that this receiver does not know.
    #[error("{what} needs the receiver healthchecks")]
    OnlyHealthchecks {
        /// Which property.
        what: &'static str,
    },
}

/// All monitors, by name.
pub type Monitors = BTreeMap<String, Monitor>;

/// A monitor, as it is configured. Whoever reads its URL can push in its name, so that it is shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Monitor {
    /// Whose push URL it is.
    #[serde(default)]
    pub receiver: Receiver,
    /// The push URL.
    pub url: String,
    /// The job that it watches, as `KIND:ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The datastore in which it watches backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The namespace there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<String>,
    /// The group there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The name that the certificate has to be valid for, in place of the host in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// A PEM file of certificates that are trusted beside the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether the certificate is verified.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub verify_tls: bool,
    /// Whether the start of a run is told, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub start: bool,
    /// Whether a result is told as an exit code.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exit_code: bool,
    /// Whether warnings count as a failure.
    #[serde(default, skip_serializing_if = "is_false")]
    pub warnings_are_down: bool,
    /// Whether it is asleep.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable: bool,
    /// What its administrator notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("receiver", &self.receiver)
            .field("server", &self.server())
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// The properties that a change may unset.
    pub const DELETABLE: [&str; 12] = [
        "job",
        "store",
        "ns",
        "group",
        "tls-server-name",
        "ca-file",
        "verify-tls",
        "start",
        "exit-code",
        "warnings-are-down",
        "disable",
        "comment",
    ];

    /// What it watches.
    ///
    /// # Errors
    /// When that makes no sense.
    pub fn binding(&self) -> Result<Binding, MonitorError> {
        fn read<T: std::str::FromStr>(
            what: &'static str,
            text: Option<&String>,
        ) -> Result<Option<T>, MonitorError> {
            let read = |text: &String| {
                text.parse().map_err(|_| MonitorError::Name {
                    what,
                    value: text.escape_debug().to_string(),
                })
            };
            text.map(read).transpose()
        }
        let job = self.job.as_deref().map(str::parse).transpose()?;
        let store = read::<DatastoreName>("store", self.store.as_ref())?;
        let ns = read::<Namespace>("ns", self.ns.as_ref())?;
        let group = read::<BackupGroup>("group", self.group.as_ref())?;
        Ok(Binding::of(job, store, ns, group)?)
    }

    /// Whether all of it makes sense.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), MonitorError> {
        self.binding()?;
        check_url(&self.url)?;
        if self.receiver != Receiver::Healthchecks {
            for (what, is_set) in [("start", self.start), ("exit-code", self.exit_code)] {
                if is_set {
                    return Err(MonitorError::OnlyHealthchecks { what });
                }
            }
        }
        Ok(())
    }

    /// What may be shown of its URL: scheme, host and port.
    pub fn server(&self) -> String {
        shown_server(&self.url)
    }

    /// Whether it is told of an event. One whose binding makes no sense is told of nothing.
    pub fn wants(&self, event: &Event) -> bool {
        let is_covered = || {
            let binding = self.binding();
            binding.is_ok_and(|binding| binding.covers(&event.source))
        };
        !self.disable && (self.start || event.outcome != Outcome::Started) && is_covered()
    }

    /// The event as this monitor counts it.
    pub fn counted(&self, mut event: Event) -> Event {
        if let (true, Outcome::Warnings(count)) = (self.warnings_are_down, &event.outcome) {
            event.outcome = Outcome::Failed(format!("{count} warnings"));
        }
        event
    }
}
