//! Patterns that include or exclude paths (`docs/formats/pxar.md`, section 8).
//!
//! A pattern is matched against the path below the archive root with a leading `/`. Lists are
//! evaluated from the last entry to the first; the first that matches decides.

use backstop_format::pxar::entry::{MODE_DIRECTORY, MODE_TYPE_MASK};

use super::glob::Glob;

/// What a matching pattern does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchType {
    /// The path is taken.
    Include,
    /// The path is left out.
    Exclude,
}

impl MatchType {
    fn inverted(self) -> Self {
        match self {
            Self::Include => Self::Exclude,
            Self::Exclude => Self::Include,
        }
    }
}

/// A pattern text that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {:?} - {problem}", String::from_utf8_lossy(.pattern))]
pub struct PatternError {
    /// The text.
    pub pattern: Vec<u8>,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One entry of a match list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
    glob: Glob,
    match_type: MatchType,
    directories_only: bool,
    anchored: bool,
    normalised: bool,
}

impl Pattern {
    /// Reads a pattern of the command line: `p` has the effect `default`, `!p` the opposite; a
    /// trailing slash restricts it to directories. It matches at any depth; `/p` at the root only.
    pub fn parse(line: impl AsRef<[u8]>, default: MatchType) -> Result<Self, PatternError> {
        Self::parse_anchored(line.as_ref(), default, None)
    }

    /// Reads a line of the `.pxarexclude` file that lies in `directory` (path relative to the
    /// archive root). A leading slash anchors it there; other lines match at any depth.
    pub fn parse_exclude_line(line: &[u8], directory: &[u8]) -> Result<Self, PatternError> {
        Self::parse_anchored(line, MatchType::Exclude, Some(directory))
    }

    fn parse_anchored(
        line: &[u8],
        default: MatchType,
        directory: Option<&[u8]>,
    ) -> Result<Self, PatternError> {
        let error = |problem| PatternError {
            pattern: line.to_vec(),
            problem,
        };
        let (rest, mut match_type) = match line.strip_prefix(b"!") {
            Some(rest) => (rest, default.inverted()),
            None => (line, default),
        };
        let clean = normalise(rest);
        let normalised = clean != rest;
        let mut text = clean.as_slice();
        if let Some(rest) = text.strip_prefix(b"!") {
            (text, match_type) = (rest, match_type.inverted());
        }
        let length = text.len();
        while let Some(rest) = text.strip_suffix(b"/") {
            text = rest;
        }
        let directories_only = text.len() < length;
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        let anchor = directory.filter(|_| text.starts_with(b"/"));
        let glob = match anchor {
            Some(directory) => {
                let mut prefix = Vec::with_capacity(directory.len() + 1);
                if !directory.is_empty() {
                    prefix.push(b'/');
                    prefix.extend_from_slice(directory);
                }
                Glob::parse(&prefix, text)
            }
            None => Glob::parse(b"", text),
        };
        let glob = glob.map_err(error)?;
        let anchored = anchor.is_some();
        Ok(Self {
            text: text.to_vec(),
            glob,
            match_type,
            directories_only,
            anchored,
            normalised,
        })
    }

    /// What the pattern does with a path it matches.
    pub fn match_type(&self) -> MatchType {
        self.match_type
    }

    /// The pattern text was changed by resolving `.`, `..` and empty components.
    pub fn was_normalised(&self) -> bool {
        self.normalised
    }

    /// The line that, read again, gives this pattern (as an exclude pattern of the command line).
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.text.len() + 2);
        if self.match_type == MatchType::Include {
            line.push(b'!');
        }
        line.extend_from_slice(&self.text);
        if self.directories_only {
            line.push(b'/');
        }
        line
    }

    /// Whether the text matches `path`, which begins with `/`; kinds are not looked at.
    fn matches_path(&self, path: &[u8]) -> bool {
        if self.anchored {
            return self.glob.matches(path);
        }
        self.glob.may_end(path)
            && (self.glob.matches(path)
                || path
                    .iter()
                    .enumerate()
                    .filter(|&(_, &byte)| byte == b'/')
                    .filter_map(|(at, _)| path.get(at + 1..))
                    .any(|suffix| self.glob.matches(suffix)))
    }
}

/// What `patterns` say about the object at `path` (with a leading `/`); `None` when none matches.
/// `mode` is only asked when a pattern is restricted to directories; when it knows no mode, the
/// object counts as not matched.
pub fn evaluate<E>(
    patterns: &[Pattern],
    path: &[u8],
    mut mode: impl FnMut() -> Result<Option<u64>, E>,
) -> Result<Option<MatchType>, E> {
    for pattern in patterns.iter().rev() {
        if !pattern.matches_path(path) {
            continue;
        }
        if pattern.directories_only {
            match mode()? {
                Some(mode) if mode & MODE_TYPE_MASK == MODE_DIRECTORY => {}
                Some(_) => continue,
                None => return Ok(None),
            }
        }
        return Ok(Some(pattern.match_type));
    }
    Ok(None)
}

/// Drops `.` and empty components, resolves `..`; keeps a leading and a trailing slash.
fn normalise(pattern: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in pattern.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            component => components.push(component),
        }
    }
    let mut clean = Vec::with_capacity(pattern.len());
    if pattern.starts_with(b"/") {
        clean.push(b'/');
    }
    clean.extend_from_slice(&components.join(&b'/'));
    if pattern.ends_with(b"/") && !clean.ends_with(b"/") && !clean.is_empty() {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::convert::Infallible;

    const DIRECTORY: u64 = 0o040_755;
    const FILE: u64 = 0o100_644;

    fn verdict(patterns: &[Pattern], path: &str, mode: u64) -> Option<MatchType> {
        evaluate(patterns, path.as_bytes(), || {
            Ok::<_, Infallible>(Some(mode))
        })
        .unwrap()
    }

    fn excluded(lines: &[&str], path: &str) -> bool {
        let patterns: Vec<_> = lines
            .iter()
            .map(|line| Pattern::parse(line, MatchType::Exclude).unwrap())
            .collect();
        verdict(&patterns, path, FILE) == Some(MatchType::Exclude)
    }

    #[test]
    fn command_line_patterns_match_at_any_depth_unless_they_begin_with_a_slash() {
        assert!(excluded(&["*.tmp"], "/a.tmp"));
        assert!(excluded(&["*.tmp"], "/d/e/a.tmp"));
        assert!(!excluded(&["*.tmp"], "/a.tmp/b"));
        assert!(excluded(&["/a"], "/a"));
        assert!(!excluded(&["/a"], "/d/a"));
        assert!(excluded(&["d/a"], "/x/d/a"));
        assert!(!excluded(&["d/a"], "/xd/a"));
        assert!(excluded(&["lost+found"], "/x/lost+found"));
    }

    #[test]
    fn the_last_matching_pattern_decides() {
        assert!(!excluded(&["sub/*", "!sub/keep"], "/sub/keep"));
        assert!(excluded(&["sub/*", "!sub/keep"], "/sub/drop"));
        assert!(excluded(&["!sub/keep", "sub/*"], "/sub/keep"));
    }

    #[test]
    fn a_trailing_slash_restricts_to_directories() {
        let patterns = [Pattern::parse("x//", MatchType::Exclude).unwrap()];
        assert_eq!(
            verdict(&patterns, "/x", DIRECTORY),
            Some(MatchType::Exclude)
        );
        assert_eq!(verdict(&patterns, "/x", FILE), None);
        let unknown = evaluate(&patterns, b"/x", || Ok::<_, Infallible>(None)).unwrap();
        assert_eq!(unknown, None);
    }

    #[test]
    fn lines_of_an_exclude_file_are_anchored_at_its_directory() {
        let matches = |line: &str, directory: &str, path: &str| {
            let pattern =
                Pattern::parse_exclude_line(line.as_bytes(), directory.as_bytes()).unwrap();
            verdict(&[pattern], path, FILE)
        };
        assert_eq!(
            matches("/anchored", "excl", "/excl/anchored"),
            Some(MatchType::Exclude)
        );
        assert_eq!(matches("/anchored", "excl", "/excl/deeper/anchored"), None);
        assert_eq!(
            matches("/anchored", "", "/anchored"),
            Some(MatchType::Exclude)
        );
        assert_eq!(matches("!/a", "d", "/d/a"), Some(MatchType::Include));
        assert_eq!(matches("p", "d", "/d/e/p"), Some(MatchType::Exclude));
        assert_eq!(matches("/x", "a[b]*", "/a[b]*/x"), Some(MatchType::Exclude));
        assert_eq!(matches("/x", "a*", "/ab/x"), None);
    }

    #[test]
    fn patterns_are_normalised_and_say_so() {
        for (text, clean, changed) in [
            ("./a", "a", true),
            ("/a/../b//c/.", "/b/c", true),
            ("a/", "a/", false),
            ("a//", "a/", true),
            ("!../a", "!a", true),
            ("*.tmp", "*.tmp", false),
        ] {
            let pattern = Pattern::parse(text, MatchType::Exclude).unwrap();
            assert_eq!(pattern.to_line(), clean.as_bytes(), "{text}");
            assert_eq!(pattern.was_normalised(), changed, "{text}");
        }
        assert_eq!(
            Pattern::parse("!./!a", MatchType::Exclude)
                .unwrap()
                .match_type(),
            MatchType::Exclude
        );
    }

    #[test]
    fn senseless_patterns_are_refused() {
        for text in [
            "",
            "/",
            "!",
            "!/",
            ".",
            "a\\",
            "[a",
            "[[:foo:]]",
            "a\0b",
            "[\\",
        ] {
            assert!(
                Pattern::parse(text, MatchType::Exclude).is_err(),
                "{text:?}"
            );
        }
    }
}
