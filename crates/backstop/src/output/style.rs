//! The look of tables: characters, borders and width, chosen from the environment.

use std::io::IsTerminal as _;

/// How tables are drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// Box drawing characters (else ASCII).
    pub unicode: bool,
    /// Whether there are borders. Without borders there is no header either.
    pub borders: bool,
    /// Whether there is a header.
    pub header: bool,
    /// Lines are cut to this number of columns.
    pub clip: Option<usize>,
}

impl Style {
    /// The style of this process: locale, `PROXMOX_OUTPUT_NO_BORDER`, `PROXMOX_OUTPUT_NO_HEADER`
    /// and the terminal's width if standard output is a terminal.
    pub fn detect() -> Self {
        let borders = std::env::var_os("PROXMOX_OUTPUT_NO_BORDER").is_none();
        Self {
            unicode: locale_is_utf8(|name| std::env::var(name).ok()),
            borders,
            header: borders && std::env::var_os("PROXMOX_OUTPUT_NO_HEADER").is_none(),
            clip: terminal_width(),
        }
    }

    /// Borders and header in box drawing characters, never cut.
    #[cfg(test)]
    pub const PLAIN: Self = Self {
        unicode: true,
        borders: true,
        header: true,
        clip: None,
    };
}

fn locale_is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| variable(name))
        .find(|value| !value.is_empty())
        .unwrap_or_default();
    let codeset = locale.split_once('.').map_or("", |(_, codeset)| codeset);
    let codeset = codeset.split('@').next().unwrap_or_default();
    matches!(
        codeset.to_ascii_lowercase().replace('-', "").as_str(),
        "utf8"
    )
}

fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> bool {
        locale_is_utf8(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LANG", "de_DE.utf8@euro")]));
        assert!(!with(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]));
        assert!(with(&[("LANG", "C"), ("LC_CTYPE", "C.UTF-8")]));
        assert!(with(&[("LANG", "C.UTF-8"), ("LC_ALL", "")]));
        assert!(!with(&[]));
        assert!(!with(&[("LANG", "de_DE.ISO-8859-1")]));
    }
}
