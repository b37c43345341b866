//! Options of a benchmark: words that begin with two dashes, most with a value.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The words after a benchmark's name.
pub struct Options<'a>(&'a [String]);

impl<'a> Options<'a> {
    /// Takes the words.
    pub fn new(words: &'a [String]) -> Self {
        Self(words)
    }

    /// The value of an option that was given.
    ///
    /// # Errors
    ///
    /// When it has none or a wrong one.
    pub fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let Some(at) = self.0.iter().position(|word| word == name) else {
            return Ok(None);
        };
        let value = self
            .0
            .get(at + 1)
            .with_context(|| format!("{name} needs a value"))?;
        Ok(Some(
            value.parse().with_context(|| format!("{name} {value}"))?,
        ))
    }

    /// Whether an option without value was given.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    /// A new folder below that of the option `--dir`, or else below one of `defaults` that exists.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn scratch(&self, defaults: &[PathBuf]) -> Result<tempfile::TempDir> {
        let given: Option<PathBuf> = self.value("--dir")?;
        let Some(base) = given
            .iter()
            .chain(defaults)
            .find(|dir| dir.is_dir())
            .cloned()
        else {
            bail!("no folder for the data; name one with --dir");
        };
        tempfile::tempdir_in(&base)
            .with_context(|| format!("making a folder in {}", base.display()))
    }
}
