//! Questions to the person at the terminal. Answers that are secret show as stars and are never printed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::{output, password_prompt};

/// Fewest characters of a new passphrase.
const SHORTEST_PASSPHRASE: usize = 5;

/// Whether somebody can answer.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks for a secret.
///
/// # Errors
/// If there is no terminal or the answer cannot be read.
pub fn password(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    password_prompt::ask(prompt).context("unable to read passphrase")
}

/// Asks twice for a new secret.
///
/// # Errors
/// If the answers differ or are shorter than five characters.
pub fn new_password(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let first = password(prompt)?;
    if first.chars().count() < SHORTEST_PASSPHRASE {
        bail!("password too short!");
    }
    let second = password("Verify Password: ")?;
    if *first != *second {
        bail!("passwords do not match!");
    }
    Ok(first)
}

/// Asks for yes or no; an empty answer, or none, means no. Reads standard input even if it is no terminal.
///
/// # Errors
/// If the answer is anything else.
pub fn confirm(question: &str) -> anyhow::Result<bool> {
    output::out(&format!("{question} [y/N]: "));
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("unable to read the answer")?;
    match answer.trim() {
        "y" | "Y" => Ok(true),
        "n" | "N" | "" => Ok(false),
        other => bail!("invalid answer '{other}', expected y or n"),
    }
}

/// Asks until the answer is y or n; the end of the input means no.
pub fn ask_until_answered(question: &str) -> bool {
    loop {
        output::err(question);
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        match std::io::stdin().lock().read_line(&mut answer) {
            Ok(count) if count > 0 => {}
            _ => return false,
        }
        match answer.trim() {
            "y" | "Y" => return true,
            "n" | "N" => return false,
            _ => {}
        }
    }
}
