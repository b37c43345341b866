//! The nouns that say which backup is meant: type, id, time, group, snapshot.
//! Formats: `docs/formats/datastore.md`. Never touches the file system.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::name::{NameError, PATTERN_MISMATCH, is_safe_id, serde_text, text_impls};

/// What was backed up. Sorts as listings do: `ct`, `host`, `vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackupType {
    /// A container.
    Ct,
    /// A host or file tree.
    Host,
    /// A virtual machine.
    Vm,
}

impl BackupType {
    /// All types in sort order.
    pub const ALL: [Self; 3] = [Self::Ct, Self::Host, Self::Vm];

    /// The text form, also the name of its directory.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ct => "ct",
            Self::Host => "host",
            Self::Vm => "vm",
        }
    }
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for BackupType {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|ty| ty.as_str() == text)
            .ok_or_else(|| NameError::new("backup type", text, "expected 'vm', 'ct' or 'host'"))
    }
}

serde_text!(BackupType);

/// The id of a backup group within its type: a safe id without length limit.
/// Ids that are numbers sort first, by value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BackupId(Box<str>);

impl BackupId {
    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_safe_id(text) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new("backup id", text, PATTERN_MISMATCH))
        }
    }
}

impl Ord for BackupId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0.parse::<u64>(), other.0.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b).then_with(|| self.0.cmp(&other.0)),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for BackupId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

text_impls!(BackupId);

/// When a snapshot was started: whole seconds since the epoch, year 0000 to 9999.
/// Its text form, `2020-06-15T05:18:33Z`, is the name of the snapshot's directory;
/// in JSON it is the number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupTime(i64);

impl BackupTime {
    /// The earliest time that has a directory name.
    pub const MIN: Self = Self(-62_167_219_200);
    /// The latest time that has a directory name.
    pub const MAX: Self = Self(253_402_300_799);

    /// Takes seconds since the epoch.
    ///
    /// # Errors
    /// When the year needs more than four digits.
    pub fn new(epoch: i64) -> Result<Self, NameError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&epoch) {
            Ok(Self(epoch))
        } else {
            Err(NameError::new(
                "backup time",
                &epoch.to_string(),
                "the year must lie between 0 and 9999",
            ))
        }
    }

    /// Seconds since the epoch.
    #[must_use]
    pub const fn epoch(self) -> i64 {
        self.0
    }
}

impl fmt::Display for BackupTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        f.pad(&format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        ))
    }
}

/// Gregorian date of a day number counted from 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Day number counted from 1970-01-01 of a Gregorian date.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + of_era - 719_468
}

impl FromStr for BackupTime {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_time(text)
            .map(Self)
            // A date such as February 30 has a number, but not this text.
            .filter(|time| time.to_string() == text)
            .ok_or_else(|| {
                NameError::new(
                    "backup time",
                    text,
                    "expected the form YYYY-MM-DDTHH:MM:SSZ (UTC)",
                )
            })
    }
}

fn parse_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let number = |part: Option<&str>, width: usize| -> Option<i64> {
        let part = part?;
        if part.len() == width && part.bytes().all(|b| b.is_ascii_digit()) {
            part.parse().ok()
        } else {
            None
        }
    };
    let mut date = date.split('-');
    let (year, month, day) = (
        number(date.next(), 4)?,
        number(date.next(), 2)?,
        number(date.next(), 2)?,
    );
    let mut time = time.split(':');
    let (hour, minute, second) = (
        number(time.next(), 2)?,
        number(time.next(), 2)?,
        number(time.next(), 2)?,
    );
    if date.next().is_some() || time.next().is_some() || !(1..=12).contains(&month) {
        return None;
    }
    Some(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

impl TryFrom<i64> for BackupTime {
    type Error = NameError;

    fn try_from(epoch: i64) -> Result<Self, Self::Error> {
        Self::new(epoch)
    }
}

impl serde::Serialize for BackupTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for BackupTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let epoch = <i64 as serde::Deserialize>::deserialize(deserializer)?;
        Self::new(epoch).map_err(serde::de::Error::custom)
    }
}

/// All snapshots of one source: `vm/100`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupGroup {
    /// What was backed up.
    pub ty: BackupType,
    /// Which one.
    pub id: BackupId,
}

impl BackupGroup {
    /// Joins type and id.
    #[must_use]
    pub const fn new(ty: BackupType, id: BackupId) -> Self {
        Self { ty, id }
    }

    /// The snapshot of this group at `time`.
    #[must_use]
    pub fn snapshot(&self, time: BackupTime) -> Snapshot {
        Snapshot {
            group: self.clone(),
            time,
        }
    }
}

impl fmt::Display for BackupGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.ty, self.id))
    }
}

impl FromStr for BackupGroup {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || NameError::new("backup group", text, "expected the form <vm|ct|host>/<id>");
        let (ty, id) = text.split_once('/').ok_or_else(error)?;
        Ok(Self {
            ty: ty.parse().map_err(|_| error())?,
            id: id.parse().map_err(|_| error())?,
        })
    }
}

serde_text!(BackupGroup);

/// One backup: `vm/100/2020-06-15T05:18:33Z`. Sorts by group, then oldest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Snapshot {
    /// The group it belongs to.
    pub group: BackupGroup,
    /// When it was started.
    pub time: BackupTime,
}

impl Snapshot {
    /// Joins group and time.
    #[must_use]
    pub const fn new(group: BackupGroup, time: BackupTime) -> Self {
        Self { group, time }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.group, self.time))
    }
}

impl FromStr for Snapshot {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            NameError::new(
                "snapshot",
                text,
                "expected the form <vm|ct|host>/<id>/<YYYY-MM-DDTHH:MM:SSZ>",
            )
        };
        let (group, time) = text.rsplit_once('/').ok_or_else(error)?;
        Ok(Self {
            group: group.parse().map_err(|_| error())?,
            time: time.parse().map_err(|_| error())?,
        })
    }
}

serde_text!(Snapshot);

/// A group or one snapshot of it, as command lines accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOrSnapshot {
    /// All snapshots; most commands then take the newest.
    Group(BackupGroup),
    /// Exactly this one.
    Snapshot(Snapshot),
}

impl FromStr for GroupOrSnapshot {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.matches('/').count() == 1 {
            text.parse().map(Self::Group)
        } else {
            text.parse().map(Self::Snapshot)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listings_put_ct_before_host_before_vm() {
        let mut types = ["vm", "host", "ct"].map(|t| t.parse::<BackupType>().unwrap());
        types.sort();
        assert_eq!(types.map(BackupType::as_str), ["ct", "host", "vm"]);
        assert!("VM".parse::<BackupType>().is_err());
    }

    #[test]
    fn numeric_ids_sort_first_and_by_value() {
        let mut ids =
            ["elsa", "100", "99", "0100", "_x", "2a"].map(|t| t.parse::<BackupId>().unwrap());
        ids.sort();
        assert_eq!(
            ids.map(|id| id.to_string()),
            ["99", "0100", "100", "2a", "_x", "elsa"]
        );
    }

    #[test]
    fn known_times_have_their_known_names() {
        for (epoch, name) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_592_198_313, "2020-06-15T05:18:33Z"),
            (1_750_000_000, "2025-06-15T15:06:40Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (BackupTime::MIN.epoch(), "0000-01-01T00:00:00Z"),
            (BackupTime::MAX.epoch(), "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(BackupTime::new(epoch).unwrap().to_string(), name);
            assert_eq!(name.parse::<BackupTime>().unwrap().epoch(), epoch);
        }
        assert!(BackupTime::new(BackupTime::MAX.epoch() + 1).is_err());
        assert!(BackupTime::new(i64::MIN).is_err());
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in [
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:60:00Z",
            "2023-01-01T00:00:60Z",
            "2023-1-01T00:00:00Z",
            "2023-01-01t00:00:00z",
            "2023-01-01T00:00:00+00:00",
            "2023-01-01T00:00:00Z ",
            "+023-01-01T00:00:00Z",
            "2023-01-01T00:00:00:00Z",
            "",
        ] {
            assert!(text.parse::<BackupTime>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_survives_its_directory_name(epoch in BackupTime::MIN.epoch()..=BackupTime::MAX.epoch()) {
            let time = BackupTime::new(epoch).unwrap();
            prop_assert_eq!(time.to_string().parse::<BackupTime>().unwrap(), time);
            let reference = jiff::Timestamp::from_second(epoch).unwrap()
                .strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            prop_assert_eq!(time.to_string(), reference);
        }

        #[test]
        fn a_snapshot_survives_its_text(ty in 0usize..3, id in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", epoch in 1i64..4_000_000_000) {
            let group = BackupGroup::new(BackupType::ALL[ty], id.parse().unwrap());
            let snapshot = group.snapshot(BackupTime::new(epoch).unwrap());
            prop_assert_eq!(snapshot.to_string().parse::<Snapshot>().unwrap(), snapshot.clone());
            prop_assert_eq!(group.to_string().parse::<BackupGroup>().unwrap(), group);
            let json = serde_json::to_string(&snapshot).unwrap();
            prop_assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
        }

        #[test]
        fn no_text_makes_a_group_with_a_slash_in_its_id(text in "\\PC{0,24}") {
            if let Ok(group) = text.parse::<BackupGroup>() {
                prop_assert!(!group.id.as_str().contains('/'));
                prop_assert_eq!(group.to_string(), text);
            }
        }
    }

    #[test]
    fn a_command_line_name_is_a_group_or_a_snapshot() {
        assert!(matches!("vm/100".parse(), Ok(GroupOrSnapshot::Group(_))));
        assert!(matches!(
            "vm/100/2020-06-15T05:18:33Z".parse(),
            Ok(GroupOrSnapshot::Snapshot(_))
        ));
        for text in ["vm", "vm/", "vm/a/b", "qemu/1", "vm/../etc", ""] {
            assert!(text.parse::<GroupOrSnapshot>().is_err(), "{text}");
        }
    }
}
