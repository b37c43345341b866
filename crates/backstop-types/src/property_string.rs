//! Several named values in one text, such as `type=offline,message="disk swap"`.
//! Format: `docs/formats/configuration.md`.

/// A property string that breaks the syntax.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyStringError {
    /// A part has no `=` and there is no key that may be left out.
    #[error("value without key, but schema does not define a default key")]
    NoDefaultKey,
    /// A `\` is followed by something else than `"`, `\` or `n`.
    #[error("unknown escape character '\\{0}'")]
    BadEscape(char),
    /// A quoted value has no end.
    #[error("unexpected end of string")]
    Unterminated,
    /// Something follows a closing quote.
    #[error("unexpected text after quoted value")]
    AfterQuote,
}

/// Splits a property string into keys and values, in order. A part without `=` belongs to
/// `default_key`. Spaces are kept.
///
/// # Errors
/// When the syntax is broken.
pub fn parse<'a>(
    text: &'a str,
    default_key: Option<&'a str>,
) -> Result<Vec<(&'a str, String)>, PropertyStringError> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = match rest.find(['=', ',', '"']) {
            Some(at) if rest.get(at..).is_some_and(|tail| tail.starts_with('=')) => (
                rest.get(..at).unwrap_or_default(),
                rest.get(at + 1..).unwrap_or_default(),
            ),
            _ => (default_key.ok_or(PropertyStringError::NoDefaultKey)?, rest),
        };
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => match after.split_once(',') {
                Some((value, _)) => (
                    value.to_string(),
                    after.get(value.len()..).unwrap_or_default(),
                ),
                None => (after.to_string(), ""),
            },
        };
        pairs.push((key, value));
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None if after.is_empty() => "",
            None => return Err(PropertyStringError::AfterQuote),
        };
    }
    Ok(pairs)
}

/// Reads up to the closing quote; gives the value and what follows the quote.
fn unquote(text: &str) -> Result<(String, &str), PropertyStringError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                Some((_, 'n')) => value.push('\n'),
                Some((_, c)) => return Err(PropertyStringError::BadEscape(c)),
                None => return Err(PropertyStringError::Unterminated),
            },
            c => value.push(c),
        }
    }
    Err(PropertyStringError::Unterminated)
}

/// Joins keys and values; an empty key writes its value alone. A value is quoted when it holds a
/// quote, a backslash, a line break or a comma.
#[must_use]
pub fn write<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        if !key.is_empty() {
            out.push_str(key);
            out.push('=');
        }
        if value.contains(['"', '\\', '\n', ',']) || (key.is_empty() && value.contains('=')) {
            let escaped = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            out.push('"');
            out.push_str(&escaped);
            out.push('"');
        } else {
            out.push_str(value);
        }
    }
    out
}

/// Splits a list in one text at `,`, `;` and white space, dropping empty elements.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| matches!(c, ',' | ';') || c.is_whitespace())
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_default_keys_and_quotes_are_understood() {
        let parse = |text| super::parse(text, Some("type")).unwrap();
        assert_eq!(
            parse("offline,message=\"disk, \\\"x\\\"\\n\""),
            [
                ("type", "offline".into()),
                ("message", "disk, \"x\"\n".into())
            ]
        );
        assert_eq!(
            parse("type=a, b =c "),
            [("type", "a".into()), (" b ", "c ".into())]
        );
        assert_eq!(
            parse("\"a=b\",x="),
            [("type", "a=b".into()), ("x", String::new())]
        );
        assert_eq!(parse(""), []);
    }

    #[test]
    fn broken_strings_are_refused() {
        use PropertyStringError as E;
        assert_eq!(super::parse("a", None), Err(E::NoDefaultKey));
        assert_eq!(super::parse("a=\"b", None), Err(E::Unterminated));
        assert_eq!(super::parse("a=\"b\\", None), Err(E::Unterminated));
        assert_eq!(super::parse("a=\"b\\t\"", None), Err(E::BadEscape('t')));
        assert_eq!(super::parse("a=\"b\"c", None), Err(E::AfterQuote));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::vec(("[a-z]{1,5}", "\\PC{0,9}"), 0..5)) {
            let text = write(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            let read = super::parse(&text, None).unwrap();
            let read: Vec<(String, String)> = read.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
            // An unquoted value that begins with a quote is the one thing that `write` must quote.
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") { let _ = super::parse(&text, Some("x")); }
    }
}
