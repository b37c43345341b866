//! From the words after a command to checked values. Nothing here can panic, whatever the words are.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::Command;
use super::parameter::{Kind, Parameter, parse_boolean};

/// The checked values of one command line.
#[derive(Debug, Default)]
pub struct Arguments {
    values: BTreeMap<&'static str, Vec<String>>,
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
    Positional(String),
    Option { name: String, value: Option<String> },
    Separator,
}

fn classify(word: &str) -> Word {
    if word.len() < 2 || !word.starts_with('-') {
        return Word::Positional(word.to_string());
    }
    if word == "--" {
        return Word::Separator;
    }
    let body = word
        .strip_prefix("--")
        .or_else(|| word.strip_prefix('-'))
        .unwrap_or(word);
    match body.split_once('=') {
        Some((name, value)) => Word::Option {
            name: name.to_string(),
            value: Some(value.to_string()),
        },
        None => Word::Option {
            name: body.to_string(),
            value: None,
        },
    }
}

/// Parses and checks the words after a command.
///
/// # Errors
/// Lists everything that is wrong.
pub fn parse(command: &Command, words: &[String]) -> Result<Arguments, ParseError> {
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

type Pairs = Vec<(String, String)>;

/// Separates options from arguments.
fn split(command: &Command, words: &[String], errors: &mut Pairs) -> (Pairs, Vec<String>) {
    let mut options = Vec::new();
    let mut positional = Vec::new();
    let mut rest: VecDeque<&String> = words.iter().collect();
    while let Some(word) = rest.pop_front() {
        match classify(word) {
            Word::Positional(word) => positional.push(word),
            Word::Separator => {
                positional.push(word.clone());
                positional.extend(rest.drain(..).cloned());
            }
            Word::Option {
                name,
                value: Some(value),
            } => options.push((name, value)),
            Word::Option { name, value: None } => {
                let parameter = command.parameter(&name);
                let boolean = parameter.is_some_and(|p| matches!(p.kind, Kind::Boolean));
                let next_is_value = rest
                    .front()
                    .is_some_and(|next| matches!(classify(next), Word::Positional(_)));
                let next_fits = next_is_value
                    && (!boolean
                        || rest
                            .front()
                            .is_some_and(|next| parse_boolean(next).is_some()));
                if next_fits {
                    let value = rest.pop_front().cloned().unwrap_or_default();
                    options.push((name, value));
                } else if parameter.is_some_and(Parameter::bare_means_yes) {
                    options.push((name, "true".to_string()));
                } else if boolean {
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
    positional: Vec<String>,
    pairs: &mut Pairs,
    errors: &mut Pairs,
) -> Vec<String> {
    let mut words: VecDeque<String> = positional.into();
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
    words.into()
}

fn check(command: &Command, pairs: Pairs, errors: &mut Pairs) -> Arguments {
    let mut arguments = Arguments::default();
    for (name, value) in pairs {
        let Some(parameter) = command.parameter(&name) else {
            errors.push((
                name,
                "schema does not allow additional properties.".to_string(),
            ));
            continue;
        };
        let values = arguments.values.entry(parameter.name).or_default();
        if !values.is_empty() && !parameter.repeated {
            errors.push((name, "duplicate parameter.".to_string()));
            continue;
        }
        if let Err(reason) = parameter.check(&value) {
            errors.push((name, reason));
            continue;
        }
        values.push(value);
    }
    for parameter in &command.parameters {
        if let Some(default) = parameter.default {
            arguments.defaults.insert(parameter.name, default);
        }
        let absent = arguments.list(parameter.name).is_empty();
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
