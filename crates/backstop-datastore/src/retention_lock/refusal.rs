//! Why a retention lock forbids something, or is not changed.

use std::fmt;

use backstop_types::{BackupTime, Namespace, Snapshot};

/// Why a lock is not changed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionLockRefusal {
    /// Setting would shorten it.
    #[error(
        "the retention lock of {} is {current} days; it cannot be set to {days}, only lengthened. Request shortening \
         instead, which takes effect after the grace window",
        place(.namespace)
    )]
    Shorter {
        /// Where.
        namespace: Namespace,
        /// What was asked for.
        days: u32,
        /// What holds.
        current: u32,
    },
    /// Setting would shorten its grace window.
    #[error(
        "the grace window of the retention lock of {} is {current} hours; it cannot be set to {hours}, only lengthened. \
         Request removal of the lock and set it anew instead",
        place(.namespace)
    )]
    ShorterGrace {
        /// Where.
        namespace: Namespace,
        /// What was asked for.
        hours: u32,
        /// What holds.
        current: u32,
    },
    /// A request would not shorten it.
    #[error(
        "the retention lock of {} is {current} days, so that {days} days are no shortening; set it instead",
        place(.namespace)
    )]
    NotShorter {
        /// Where.
        namespace: Namespace,
        /// What was asked for.
        days: u32,
        /// What holds.
        current: u32,
    },
    /// There is no lock.
    #[error("{} has no retention lock of its own", place(.0))]
    NoLock(Namespace),
    /// There is no request.
    #[error("there is no request to shorten the retention lock of {}", place(.0))]
    NoRequest(Namespace),
    /// There is no request to believe the clock.
    #[error("there is no request to confirm the clock")]
    NoClockRequest,
    /// The clock needs no confirmation.
    #[error("the clock is trusted, there is nothing to confirm")]
    ClockTrusted,
    /// A number is outside its bounds.
    #[error("'{what}' must be 1 to {max}, not {value}")]
    OutOfBounds {
        /// Of which parameter.
        what: &'static str,
        /// The number.
        value: u32,
        /// The largest that is allowed.
        max: u32,
    },
}

/// What was about to happen to a locked snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It would have been removed.
    Removal,
    /// It would have been moved to where it is locked for a shorter time or not at all.
    Move {
        /// To this namespace.
        to: Namespace,
    },
    /// It would have got other content.
    Overwriting,
}

/// A snapshot cannot be removed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionLocked {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Where it is.
    pub namespace: Namespace,
    /// Until when, in seconds since 1970.
    pub until: i64,
    /// Where the lock is set.
    pub lock: Namespace,
    /// For how many days it holds.
    pub days: u32,
    /// What was about to happen.
    pub attempt: Attempt,
    /// How far the clock is ahead of the time that is trusted, in seconds, if that is what keeps it locked.
    pub clock_ahead: Option<i64>,
}

impl fmt::Display for RetentionLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = match self.namespace.is_root() {
            true => String::new(),
            false => format!(" in namespace '{}'", self.namespace),
        };
        write!(
            f,
            "snapshot {}{within} is locked until {} by the retention lock of {} ({} days)",
            self.snapshot,
            moment(self.until),
            place(&self.lock),
            self.days
        )?;
        match &self.attempt {
            Attempt::Removal => f.write_str("; nobody can remove it before, whatever the role")?,
            Attempt::Overwriting => f.write_str("; it cannot be replaced by other content")?,
            Attempt::Move { to } => write!(
                f,
                "; it cannot be moved to {}, where it would not be locked as long",
                target(to)
            )?,
        }
        if let Some(ahead) = self.clock_ahead {
            write!(
                f,
                ". The system clock is past that, but it has jumped {ahead} seconds ahead of the time that has passed; if it \
                 is right, confirm it with 'backstop retention-lock confirm-clock'"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for RetentionLocked {}

/// Where a lock is set, in words.
pub fn place(namespace: &Namespace) -> String {
    if namespace.is_root() {
        "the datastore".to_owned()
    } else {
        format!("namespace '{namespace}'")
    }
}

fn target(namespace: &Namespace) -> String {
    if namespace.is_root() {
        "the root namespace".to_owned()
    } else {
        format!("namespace '{namespace}'")
    }
}

/// A moment as it is written everywhere: UTC, to the second.
pub fn moment(epoch: i64) -> String {
    BackupTime::new(epoch).map_or_else(|_| format!("@{epoch}"), |time| time.to_string())
}
