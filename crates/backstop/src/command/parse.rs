//! From the words after a command to checked values. Nothing here can panic, whatever the words are.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Command;
use super::parameter::{Kind, Parameter, parse_boolean};

/// The checked values of one command line.
#[derive(Debug, Default)]
pub struct Arguments {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Those of [`Kind::Path`], which need not be UTF-8.
    paths: BTreeMap<&'static str, Vec<OsString>>,
    defaults: BTreeMap<&'static str, &'static str>,
    /// The words that the program is called by, for hints that name a command.
    pub program: String,
}

impl Arguments {
    /// The value of an option or argument, or its default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given(name)
            .or_else(|| self.defaults.get(name).copied())
    }

    /// The value if it stood on the command line.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .and_then(|values| values.first())
            .map(String::as_str)
    }

    /// The value of a mandatory argument.
    ///
    /// # Errors
    /// Names the parameter if it is absent.
    pub fn required(&self, name: &str) -> anyhow::Result<&str> {
        self.text(name)
            .ok_or_else(|| anyhow::anyhow!("parameter '{name}' is missing and it is not optional."))
    }

    /// All values of a repeated option.
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The path of an option or argument of [`Kind::Path`], or its default.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.given_path(name)
            .or_else(|| self.defaults.get(name).map(Path::new))
    }

    /// The path if it stood on the command line.
    pub fn given_path(&self, name: &str) -> Option<&Path> {
        self.paths(name).first().map(Path::new)
    }

    /// The path of a mandatory argument.
    ///
    /// # Errors
    /// Names the parameter if it is absent.
    pub fn required_path(&self, name: &str) -> anyhow::Result<&Path> {
        self.path(name)
            .ok_or_else(|| anyhow::anyhow!("parameter '{name}' is missing and it is not optional."))
    }

    /// All values of a repeated option or argument of [`Kind::Path`].
    pub fn paths(&self, name: &str) -> &[OsString] {
        self.paths.get(name).map_or(&[], Vec::as_slice)
    }

    /// What stood on the command line, by the names of the parameters.
    pub fn all_given(&self) -> impl Iterator<Item = (&'static str, Vec<String>)> {
        let texts = self.values.iter().map(|(name, all)| (*name, all.clone()));
        let paths = self.paths.iter().map(|(name, all)| {
            let all = all.iter().map(|path| path.to_string_lossy().into_owned());
            (*name, all.collect())
        });
        texts.chain(paths)
    }

    /// A yes or no; absent and without default means no.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).and_then(parse_boolean).unwrap_or(false)
    }

    /// A yes or no if it stood on the command line.
    pub fn given_flag(&self, name: &str) -> Option<bool> {
        self.given(name).and_then(parse_boolean)
    }

    /// A whole number, or its default.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    fn has(&self, name: &str) -> bool {
        !self.list(name).is_empty() || !self.paths(name).is_empty()
    }

    /// Adds a value after checking it.
    fn add(&mut self, parameter: &Parameter, value: OsString) -> Result<(), String> {
        parameter.check(&value.to_string_lossy())?;
        if matches!(parameter.kind, Kind::Path(_)) {
            self.paths.entry(parameter.name).or_default().push(value);
        } else {
            let text = value
                .into_string()
                .map_err(|_| "value is not valid UTF-8.".to_string())?;
            self.values.entry(parameter.name).or_default().push(text);
        }
        Ok(())
    }
}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Parameters with the reason each was refused.
    Parameters(Vec<(String, String)>),
    /// Words that no argument takes.
    Additional(Vec<String>),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Additional(words) => write!(f, "got additional arguments: {words:?}"),
            Self::Parameters(errors) => match errors.as_slice() {
                [(name, reason)] => {
                    write!(f, "parameter verification failed - '{name}': {reason}")
                }
                errors => {
                    f.write_str("parameter verification failed:")?;
                    for (name, reason) in errors {
                        write!(f, "\n- '{name}': {reason}")?;
                    }
                    Ok(())
                }
            },
        }
    }
}

impl std::error::Error for ParseError {}

enum Word {
    Positional(OsString),
    Option {
        name: String,
        value: Option<OsString>,
    },
    Separator,
}

fn classify(word: &OsStr) -> Word {
    let bytes = word.as_bytes();
    if bytes.len() < 2 || !bytes.starts_with(b"-") {
        return Word::Positional(word.to_owned());
    }
    if word == "--" {
        return Word::Separator;
    }
    let body = bytes
        .strip_prefix(b"--")
        .or_else(|| bytes.strip_prefix(b"-"))
        .unwrap_or(bytes);
    let mut parts = body.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    Word::Option {
        // What is not UTF-8 is the name of no option.
        name: String::from_utf8_lossy(name).into_owned(),
        value: parts
            .next()
            .map(|value| OsStr::from_bytes(value).to_owned()),
    }
}

fn boolean(word: &OsStr) -> Option<bool> {
    word.to_str().and_then(parse_boolean)
}

/// Parses and checks the words after a command.
///
/// # Errors
/// Lists everything that is wrong.
pub fn parse<W: AsRef<OsStr>>(command: &Command, words: &[W]) -> Result<Arguments, ParseError> {
    let mut errors = Vec::new();
    let (options, positional) = split(command, words, &mut errors);
    if !errors.is_empty() {
        return Err(ParseError::Parameters(errors));
    }
    let mut pairs = options;
    let additional = fill(command, positional, &mut pairs, &mut errors);
    if !additional.is_empty() {
        return Err(ParseError::Additional(additional));
    }
    if !errors.is_empty() {
        return Err(ParseError::Parameters(errors));
    }
    let arguments = check(command, pairs, &mut errors);
    if errors.is_empty() {
        Ok(arguments)
    } else {
        Err(ParseError::Parameters(errors))
    }
}

/// Names with values.
type Pairs = Vec<(String, OsString)>;
/// Names with what is wrong.
type Errors = Vec<(String, String)>;

/// Separates options from arguments.
fn split<W: AsRef<OsStr>>(
    command: &Command,
    words: &[W],
    errors: &mut Errors,
) -> (Pairs, Vec<OsString>) {
    let mut options = Vec::new();
    let mut positional = Vec::new();
    let mut rest: VecDeque<&OsStr> = words.iter().map(AsRef::as_ref).collect();
    while let Some(word) = rest.pop_front() {
        match classify(word) {
            Word::Positional(word) => positional.push(word),
            Word::Separator => {
                positional.push(word.to_owned());
                positional.extend(rest.drain(..).map(OsStr::to_owned));
            }
            Word::Option {
                name,
                value: Some(value),
            } => options.push((name, value)),
            Word::Option { name, value: None } => {
                let parameter = command.parameter(&name);
                let is_boolean = parameter.is_some_and(|p| matches!(p.kind, Kind::Boolean));
                let next_is_value = rest
                    .front()
                    .is_some_and(|next| matches!(classify(next), Word::Positional(_)));
                let next_fits = next_is_value
                    && (!is_boolean || rest.front().is_some_and(|next| boolean(next).is_some()));
                if next_fits {
                    let value = rest.pop_front().unwrap_or_default().to_owned();
                    options.push((name, value));
                } else if parameter.is_some_and(Parameter::bare_means_yes) {
                    options.push((name, "true".into()));
                } else if is_boolean {
                    errors.push((name, "missing boolean value.".to_string()));
                } else {
                    errors.push((name, "missing parameter value.".to_string()));
                }
            }
        }
    }
    (options, positional)
}

/// Gives the arguments their names. Returns the words that are left over.
fn fill(
    command: &Command,
    positional: Vec<OsString>,
    pairs: &mut Pairs,
    errors: &mut Errors,
) -> Vec<String> {
    let mut words: VecDeque<OsString> = positional.into();
    for name in &command.positional {
        let Some(parameter) = command.parameter(name) else {
            continue;
        };
        if parameter.repeated {
            if words.is_empty() && parameter.required {
                errors.push(((*name).to_string(), "missing argument".to_string()));
            }
            pairs.extend(words.drain(..).map(|word| ((*name).to_string(), word)));
        } else if let Some(word) = words.pop_front() {
            pairs.push(((*name).to_string(), word));
        } else if parameter.required {
            errors.push(((*name).to_string(), "missing argument".to_string()));
        }
    }
    let left = words.iter().map(|word| word.to_string_lossy().into_owned());
    left.collect()
}

fn check(command: &Command, pairs: Pairs, errors: &mut Errors) -> Arguments {
    let mut arguments = Arguments::default();
    for (name, value) in pairs {
        let Some(parameter) = command.parameter(&name) else {
            errors.push((
                name,
                "schema does not allow additional properties.".to_string(),
            ));
            continue;
        };
        if arguments.has(parameter.name) && !parameter.repeated {
            errors.push((name, "duplicate parameter.".to_string()));
            continue;
        }
        if let Err(reason) = arguments.add(parameter, value) {
            errors.push((name, reason));
        }
    }
    for parameter in &command.parameters {
        if let Some(default) = parameter.default {
            arguments.defaults.insert(parameter.name, default);
        }
        let absent = !arguments.has(parameter.name);
        let refused = errors.iter().any(|(name, _)| name == parameter.name);
        if parameter.required && absent && !refused {
            errors.push((
                parameter.name.to_string(),
                "parameter is missing and it is not optional.".to_string(),
            ));
        }
    }
    arguments
}
