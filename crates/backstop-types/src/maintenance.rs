//! Maintenance modes of a datastore: what they forbid and how they are written.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::name::{NameError, serde_text};
use crate::property_string;

/// What somebody wants to do with a datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read backups.
    Read,
    /// Write, change or delete something in it.
    Write,
    /// Look at what is known of it without touching its files.
    Lookup,
}

/// The kind of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaintenanceType {
    /// Nothing may be written.
    ReadOnly,
    /// Nothing may be read or written.
    Offline,
    /// It is being deleted.
    Delete,
    /// Its device is being unmounted.
    Unmount,
    /// Its local state is being rebuilt from object storage.
    S3Refresh,
}

impl MaintenanceType {
    const ALL: [Self; 5] = [
        Self::ReadOnly,
        Self::Offline,
        Self::Delete,
        Self::Unmount,
        Self::S3Refresh,
    ];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Offline => "offline",
            Self::Delete => "delete",
            Self::Unmount => "unmount",
            Self::S3Refresh => "s3-refresh",
        }
    }
}

/// A maintenance mode with the reason that the administrator gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceMode {
    /// What kind.
    pub ty: MaintenanceType,
    /// Why, as stored (percent-encoded).
    pub message: Option<String>,
}

impl MaintenanceMode {
    /// Whether `operation` may go on.
    ///
    /// # Errors
    /// The text that tells why it may not; it follows `datastore '<name>' is unavailable: `.
    pub fn check(&self, operation: Operation) -> Result<(), String> {
        let message = self.message.as_deref().unwrap_or_default();
        let message = percent_decode_str(message).decode_utf8_lossy();
        match (self.ty, operation) {
            (MaintenanceType::Delete, _) => Err("datastore is being deleted".to_string()),
            (_, Operation::Lookup) | (MaintenanceType::ReadOnly, Operation::Read) => Ok(()),
            (MaintenanceType::ReadOnly, _) => Err(format!("read-only maintenance mode: {message}")),
            (MaintenanceType::Offline, _) => Err(format!("offline maintenance mode: {message}")),
            (MaintenanceType::Unmount, _) => Err("datastore is being unmounted".to_string()),
            (MaintenanceType::S3Refresh, _) => {
                Err(format!("S3 refresh maintenance mode: {message}"))
            }
        }
    }

    /// Whether cached handles of the datastore must be dropped once nobody uses it.
    #[must_use]
    pub const fn drops_cached_state(&self) -> bool {
        matches!(
            self.ty,
            MaintenanceType::Offline | MaintenanceType::Delete | MaintenanceType::Unmount
        )
    }
}

impl fmt::Display for MaintenanceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs = vec![("", self.ty.as_str())];
        if let Some(message) = &self.message {
            pairs.push(("message", message));
        }
        f.write_str(&property_string::write(pairs))
    }
}

impl FromStr for MaintenanceMode {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: String| NameError::new("maintenance mode", text, reason);
        let (mut ty, mut message) = (None, None);
        let pairs = property_string::parse(text, Some("type")).map_err(|e| error(e.to_string()))?;
        for (key, value) in pairs {
            match key {
                "type" if ty.is_none() => {
                    let found = MaintenanceType::ALL
                        .into_iter()
                        .find(|ty| ty.as_str() == value);
                    ty = Some(found.ok_or_else(|| error(format!("unknown type '{value}'")))?);
                }
                "message" if message.is_none() => message = Some(value),
                "type" | "message" => return Err(error(format!("duplicate key '{key}'"))),
                _ => return Err(error(format!("unknown key '{key}'"))),
            }
        }
        let ty = ty.ok_or_else(|| error("type is missing".to_string()))?;
        Ok(Self { ty, message })
    }
}

serde_text!(MaintenanceMode);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes_forbid_what_they_should_with_the_known_texts() {
        let mode: MaintenanceMode = "type=read-only,message=fix%2Cture".parse().unwrap();
        assert_eq!(mode.to_string(), "read-only,message=fix%2Cture");
        assert_eq!(mode.check(Operation::Read), Ok(()));
        assert_eq!(
            mode.check(Operation::Write).unwrap_err(),
            "read-only maintenance mode: fix,ture"
        );
        let mode: MaintenanceMode = "offline,message=\"in repair\"".parse().unwrap();
        assert_eq!(mode.to_string(), "offline,message=in repair");
        assert_eq!(
            mode.check(Operation::Read).unwrap_err(),
            "offline maintenance mode: in repair"
        );
        assert_eq!(mode.check(Operation::Lookup), Ok(()));
        let mode: MaintenanceMode = "s3-refresh".parse().unwrap();
        assert_eq!(
            mode.check(Operation::Read).unwrap_err(),
            "S3 refresh maintenance mode: "
        );
        assert!(
            "delete"
                .parse::<MaintenanceMode>()
                .unwrap()
                .check(Operation::Lookup)
                .is_err()
        );
    }

    #[test]
    fn broken_modes_are_refused() {
        for text in [
            "",
            "message=x",
            "nope",
            "offline,offline",
            "offline,x=1",
            "offline,message=a,message=b",
        ] {
            assert!(text.parse::<MaintenanceMode>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_mode_survives_its_text(ty in 0usize..5, message in proptest::option::of("[ -~]{0,20}")) {
            let mode = MaintenanceMode { ty: MaintenanceType::ALL[ty], message };
            prop_assert_eq!(mode.to_string().parse::<MaintenanceMode>().unwrap(), mode);
        }
    }
}
