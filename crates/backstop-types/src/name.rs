//! What all validated names have in common: the "safe id" rule, the error of a refused name,
//! and the macro that makes a text newtype. Never accepts a name that could leave a directory
//! (`/`, `..` and control characters are outside every rule here).

use std::fmt;

/// A name from outside that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    /// What the name was meant to be, for example `backup id`.
    pub kind: &'static str,
    /// The refused text, shortened to at most 128 characters.
    pub value: String,
    /// Which rule it breaks.
    pub reason: String,
}

impl NameError {
    /// Longest part of a refused name that an error repeats, in characters.
    const SHOWN: usize = 128;

    pub(crate) fn new(kind: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self {
            kind,
            value: value.chars().take(Self::SHOWN).collect(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid {} '{}' - {}",
            self.kind,
            self.value.escape_debug(),
            self.reason
        )
    }
}

impl std::error::Error for NameError {}

/// Reason text shared by all pattern rules.
pub(crate) const PATTERN_MISMATCH: &str = "value does not match the regex pattern";

/// Whether `text` is a safe id: first `A-Z a-z 0-9 _`, then also `.` and `-`.
#[must_use]
pub fn is_safe_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    match bytes.next() {
        Some(first) if first.is_ascii_alphanumeric() || first == b'_' => {
            bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        }
        _ => false,
    }
}

/// Checks the length of a name in characters, with the texts that parameter errors use.
pub(crate) fn check_length(text: &str, min: usize, max: usize) -> Result<(), String> {
    let count = text.chars().count();
    if count < min {
        Err(format!("value must be at least {min} characters long"))
    } else if count > max {
        Err(format!("value may only be {max} characters long"))
    } else {
        Ok(())
    }
}

/// Checks a safe id with a length limit in characters.
pub(crate) fn check_safe_id(text: &str, min: usize, max: usize) -> Result<(), String> {
    check_length(text, min, max)?;
    if is_safe_id(text) {
        Ok(())
    } else {
        Err(PATTERN_MISMATCH.to_string())
    }
}

/// Makes a type whose only content is a checked text.
macro_rules! text_name {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), String> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(reason) => Err($crate::name::NameError::new($kind, text, reason)),
                }
            }
        }

        $crate::name::text_impls!($name);
    };
}

/// Implements the conversions that every text-like type shares; it needs `FromStr` and `as_str`.
macro_rules! text_impls {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl TryFrom<String> for $name {
            type Error = <Self as std::str::FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        $crate::name::serde_text!($name);
    };
}

/// Serialises a type as its `Display` text and reads it back through `FromStr`.
macro_rules! serde_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text =
                    <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {serde_text, text_impls, text_name};

text_name!(
    /// The name of a datastore: safe id, 3 to 32 characters.
    DatastoreName, "datastore name", |text| check_safe_id(text, 3, 32)
);

text_name!(
    /// The id of a job, remote, rule and the like: safe id, 3 to 32 characters.
    ConfigId, "id", |text| check_safe_id(text, 3, 32)
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_safe_id_rule_equals_its_pattern(text in "[ -~é/]{0,8}") {
            let pattern = regex::Regex::new(r"^[A-Za-z0-9_][A-Za-z0-9._\-]*$").unwrap();
            prop_assert_eq!(is_safe_id(&text), pattern.is_match(&text));
        }

        #[test]
        fn a_datastore_name_survives_its_text_form(text in "[A-Za-z0-9_][A-Za-z0-9._-]{2,31}") {
            let name: DatastoreName = text.parse().unwrap();
            prop_assert_eq!(name.to_string(), text.clone());
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<DatastoreName>(&json).unwrap(), name);
        }
    }

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for text in [
            "..", ".", "", "a/b", "/abc", "abc\n", "a\0bc", "-abc", ".abc", "ab", "äbc",
        ] {
            assert!(text.parse::<DatastoreName>().is_err(), "{text:?}");
        }
        assert!("a".repeat(33).parse::<DatastoreName>().is_err());
    }

    #[test]
    fn an_error_shows_no_raw_control_characters() {
        let error = "a\u{1b}[2J".parse::<DatastoreName>().unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
