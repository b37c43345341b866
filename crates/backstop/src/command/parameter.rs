//! One argument or option: its name, the values it takes and how they are checked.

use backstop_types::schema::{Format, Schema};

use crate::output::size;

/// Checks a text beyond its length; the error is the sentence that follows the parameter's name.
pub type Check = fn(&str) -> Result<(), String>;

/// What completion may propose for a value, beyond the choices of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Nothing.
    None,
    /// Files and directories.
    File,
    /// The words given.
    Words(&'static [&'static str]),
}

/// The values that a parameter takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text of `min` to `max` characters that passes `check`.
    Text {
        /// Shortest length in characters.
        min: usize,
        /// Greatest length in characters.
        max: usize,
        /// A further check.
        check: Option<Check>,
    },
    /// A path, or something that ends in one, which passes the check. It need not be UTF-8; the check sees what is not as
    /// replacement characters.
    Path(Option<Check>),
    /// A whole number within the limits.
    Integer {
        /// Least value.
        min: Option<i64>,
        /// Greatest value.
        max: Option<i64>,
    },
    /// Yes or no.
    Boolean,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A size in bytes with an optional unit.
    ByteSize,
    /// What the rule for the same value in requests and configuration files allows.
    Schema(&'static Schema),
}

/// The declaration of one argument or option.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The name, as in `--name`.
    pub name: &'static str,
    /// What it is for, in one or two sentences.
    pub help: &'static str,
    /// The values it takes.
    pub kind: Kind,
    /// The value that holds when it is absent, as it would be written.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it may be given several times.
    pub repeated: bool,
    /// What completion proposes.
    pub completion: Completion,
    /// A name that it had in old versions, understood but not shown.
    pub former_name: Option<&'static str>,
}

impl Parameter {
    const fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            default: None,
            required: false,
            repeated: false,
            completion: Completion::None,
            former_name: None,
        }
    }

    /// A value with the rule that it has in requests and configuration files; lists may be repeated.
    pub const fn of(name: &'static str, help: &'static str, schema: &'static Schema) -> Self {
        match schema {
            Schema::Boolean => Self::new(name, help, Kind::Boolean),
            Schema::Integer { min, max } => Self::new(
                name,
                help,
                Kind::Integer {
                    min: if *min == i64::MIN { None } else { Some(*min) },
                    max: if *max == i64::MAX { None } else { Some(*max) },
                },
            ),
            Schema::Text {
                format: Format::Enum(words),
                ..
            } => Self::new(name, help, Kind::Choice(words)),
            Schema::Array { items, .. } => Self::of(name, help, items).repeated(),
            other => Self::new(name, help, Kind::Schema(other)),
        }
    }

    /// A text without limits.
    pub const fn text(name: &'static str, help: &'static str) -> Self {
        Self::new(
            name,
            help,
            Kind::Text {
                min: 0,
                max: usize::MAX,
                check: None,
            },
        )
    }

    /// A path, completed with file names.
    pub const fn path(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Path(None)).file()
    }

    /// A whole number.
    pub const fn integer(
        name: &'static str,
        help: &'static str,
        min: Option<i64>,
        max: Option<i64>,
    ) -> Self {
        Self::new(name, help, Kind::Integer { min, max })
    }

    /// A yes or no; absent means no unless a default says otherwise.
    pub const fn flag(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Boolean)
    }

    /// One of `words`.
    pub const fn choice(
        name: &'static str,
        help: &'static str,
        words: &'static [&'static str],
    ) -> Self {
        Self::new(name, help, Kind::Choice(words))
    }

    /// A size in bytes.
    pub const fn byte_size(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::ByteSize)
    }

    /// The same with limits to the length of a text, in characters.
    pub const fn length(mut self, least: usize, most: usize) -> Self {
        if let Kind::Text { check, .. } = self.kind {
            self.kind = Kind::Text {
                min: least,
                max: most,
                check,
            };
        }
        self
    }

    /// The same with a check of the text.
    pub const fn checked(mut self, check: Check) -> Self {
        if let Kind::Text { min, max, .. } = self.kind {
            self.kind = Kind::Text {
                min,
                max,
                check: Some(check),
            };
        }
        if let Kind::Path(_) = self.kind {
            self.kind = Kind::Path(Some(check));
        }
        self
    }

    /// The same with a default value.
    pub const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    /// The same, but it must be given.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The same, but it may be given several times.
    pub const fn repeated(mut self) -> Self {
        self.repeated = true;
        self
    }

    /// The same under another name.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The same, also understood under the name that it had in old versions.
    pub const fn formerly(mut self, name: &'static str) -> Self {
        self.former_name = Some(name);
        self
    }

    /// The same with another explanation.
    pub const fn explained(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// The same, completed with file names.
    pub const fn file(mut self) -> Self {
        self.completion = Completion::File;
        self
    }

    /// The same, completed with the words given.
    pub const fn proposed(mut self, words: &'static [&'static str]) -> Self {
        self.completion = Completion::Words(words);
        self
    }

    /// Whether a bare `--name` means yes.
    pub fn bare_means_yes(&self) -> bool {
        matches!(self.kind, Kind::Boolean) && self.default != Some("true")
    }

    /// Checks one value.
    ///
    /// # Errors
    /// The reason in the words that follow the parameter's name.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Text { min, max, check } => {
                let length = value.chars().count();
                if length < min {
                    return Err(format!("value must be at least {min} characters long"));
                }
                if length > max {
                    return Err(format!("value may only be {max} characters long"));
                }
                check.map_or(Ok(()), |check| check(value))
            }
            Kind::Path(check) => check.map_or(Ok(()), |check| check(value)),
            Kind::Integer { min, max } => {
                let number: i64 = value
                    .parse()
                    .map_err(|error: std::num::ParseIntError| error.to_string())?;
                if let Some(min) = min.filter(|min| number < *min) {
                    return Err(format!(
                        "value must have a minimum value of {min} (got {number})"
                    ));
                }
                if let Some(max) = max.filter(|max| number > *max) {
                    return Err(format!(
                        "value must have a maximum value of {max} (got {number})"
                    ));
                }
                Ok(())
            }
            Kind::Boolean => match parse_boolean(value) {
                Some(_) => Ok(()),
                None => Err("Unable to parse boolean option.".to_string()),
            },
            Kind::Choice(words) => {
                if words.contains(&value) {
                    Ok(())
                } else {
                    Err(format!(
                        "value '{value}' is not defined in the enumeration."
                    ))
                }
            }
            Kind::Schema(schema) => schema.parse_text(value).map(|_| ()),
            Kind::ByteSize => size::parse_bytes(value)
                .map(|_| ())
                .map_err(|error| error.to_string()),
        }
    }

    /// The description of the value for the usage text.
    pub fn value_text(&self) -> String {
        match self.kind {
            Kind::Text { .. } | Kind::Path(_) | Kind::ByteSize | Kind::Schema(_) => {
                "<string>".to_string()
            }
            Kind::Boolean => "<boolean>".to_string(),
            Kind::Choice(words) => words.join("|"),
            Kind::Integer {
                min: None,
                max: None,
            } => "<integer>".to_string(),
            Kind::Integer { min, max } => {
                let bound = |limit: Option<i64>| limit.map_or("N".to_string(), |l| l.to_string());
                format!("<integer> ({} - {})", bound(min), bound(max))
            }
        }
    }
}

/// Reads `1 on yes true` and `0 off no false` in any case.
pub fn parse_boolean(word: &str) -> Option<bool> {
    backstop_types::schema::parse_boolean(word).ok()
}
