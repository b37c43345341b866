//! Shell-like patterns over bytes, matched against a complete string.
//!
//! | token | matches |
//! |---|---|
//! | `?` | one byte except `/` |
//! | `*` | any run without `/` |
//! | `**` as a whole component | any run; between slashes also nothing |
//! | `[…]` | one byte of the set, `/` included; `^` negates; ranges, `[:class:]`, `\x` |
//! | `\x` | x |
//!
//! Matching takes at most (pattern length) × (text length) steps.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
    /// The literal bytes the pattern ends with, for a quick test.
    ending: Vec<u8>,
    literal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyByte,
    Set(Box<ByteSet>),
    /// `*`
    Run,
    /// `**/`: any number of whole components.
    Components,
    /// `**` at the end: anything.
    Anything,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn add(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    fn contains(&self, byte: u8) -> bool {
        self.0
            .get(usize::from(byte >> 6))
            .is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }
}

type ParseResult<T> = Result<T, &'static str>;

impl Glob {
    /// Parses `pattern`, which has to match behind the literal bytes `prefix`.
    pub fn parse(prefix: &[u8], pattern: &[u8]) -> ParseResult<Self> {
        if pattern.contains(&0) {
            return Err("it contains a NUL byte");
        }
        let mut tokens: Vec<Token> = prefix.iter().map(|&byte| Token::Byte(byte)).collect();
        let mut rest = pattern;
        let mut component_start = true;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            let at_start = std::mem::replace(&mut component_start, byte == b'/');
            match byte {
                b'?' => tokens.push(Token::AnyByte),
                b'*' if at_start && rest == b"*" => {
                    tokens.push(Token::Anything);
                    rest = b"";
                }
                b'*' if at_start && rest.starts_with(b"*/") => {
                    tokens.push(Token::Components);
                    rest = rest.get(2..).unwrap_or_default();
                    component_start = true;
                }
                b'*' => {
                    if tokens.last() != Some(&Token::Run) {
                        tokens.push(Token::Run);
                    }
                }
                b'[' => tokens.push(Token::Set(Box::new(parse_set(&mut rest)?))),
                b'\\' => tokens.push(Token::Byte(escaped(&mut rest)?)),
                byte => tokens.push(Token::Byte(byte)),
            }
        }
        let mut ending: Vec<u8> = tokens
            .iter()
            .rev()
            .map_while(|token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            })
            .collect();
        ending.reverse();
        let literal = ending.len() == tokens.len();
        Ok(Self {
            tokens,
            ending,
            literal,
        })
    }

    /// False when neither `text` nor any ending of it can match.
    pub fn may_end(&self, text: &[u8]) -> bool {
        text.ends_with(&self.ending)
    }

    /// Whether the pattern matches all of `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        if self.literal {
            return text == self.ending;
        }
        if !self.may_end(text) {
            return false;
        }
        let width = text.len() + 1;
        let mut seen = vec![0u64; ((self.tokens.len() + 1) * width).div_ceil(64)];
        let mut open = vec![(0usize, 0usize)];
        while let Some((token, at)) = open.pop() {
            let state = token * width + at;
            let Some(word) = seen.get_mut(state / 64) else {
                continue;
            };
            if *word >> (state % 64) & 1 == 1 {
                continue;
            }
            *word |= 1 << (state % 64);
            let byte = text.get(at).copied();
            match (self.tokens.get(token), byte) {
                (None, None) => return true,
                (None, Some(_)) => {}
                (Some(Token::Run), byte) => {
                    if byte.is_some_and(|byte| byte != b'/') {
                        open.push((token, at + 1));
                    }
                    open.push((token + 1, at));
                }
                (Some(Token::Anything), _) => return true,
                (Some(Token::Components), _) => {
                    let rest = text.get(at..).unwrap_or_default();
                    if let Some(slash) = rest.iter().position(|&byte| byte == b'/') {
                        open.push((token, at + slash + 1));
                    }
                    open.push((token + 1, at));
                }
                (Some(token_here), Some(byte)) => {
                    let fits = match token_here {
                        Token::Byte(wanted) => *wanted == byte,
                        Token::Set(set) => set.contains(byte),
                        _ => byte != b'/',
                    };
                    if fits {
                        open.push((token + 1, at + 1));
                    }
                }
                (Some(_), None) => {}
            }
        }
        false
    }
}

fn escaped(rest: &mut &[u8]) -> ParseResult<u8> {
    let (&byte, tail) = rest.split_first().ok_or("it ends with a backslash")?;
    *rest = tail;
    Ok(byte)
}

/// Parses a set behind its `[`.
fn parse_set(rest: &mut &[u8]) -> ParseResult<ByteSet> {
    const UNCLOSED: &str = "a set is not closed";
    let mut set = ByteSet::default();
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = rest.get(1..).unwrap_or_default();
    }
    loop {
        let (&byte, tail) = rest.split_first().ok_or(UNCLOSED)?;
        *rest = tail;
        let low = match byte {
            b']' => break,
            b'[' if rest.first() == Some(&b':') => {
                add_class(&mut set, rest)?;
                continue;
            }
            b'\\' => escaped(rest)?,
            byte => byte,
        };
        let high = match *rest {
            [b'-', next, ..] if *next != b']' => {
                *rest = rest.get(2..).unwrap_or_default();
                if *next == b'\\' {
                    escaped(rest)?
                } else {
                    *next
                }
            }
            _ => low,
        };
        for byte in low.min(high)..=low.max(high) {
            set.add(byte);
        }
    }
    if negated {
        set.0 = set.0.map(|word| !word);
    }
    Ok(set)
}

/// Parses a class behind its `[`.
fn add_class(set: &mut ByteSet, rest: &mut &[u8]) -> ParseResult<()> {
    let body = rest.get(1..).unwrap_or_default();
    let end = body
        .windows(2)
        .position(|pair| pair == b":]")
        .ok_or("a set is not closed")?;
    let class: fn(&u8) -> bool = match body.get(..end).unwrap_or_default() {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, 0x20..=0x7e),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return Err("unknown character class"),
    };
    for byte in (0..=u8::MAX).filter(class) {
        set.add(byte);
    }
    *rest = body.get(end + 2..).unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_match_what_they_promise() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("*", "abc", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abc/de", false),
            ("**", "a/b/c", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("**/b", "b", true),
            ("**/b", "a/b", true),
            ("**/b", "ab", false),
            ("a**b", "a/b", false),
            ("a**b", "axxb", true),
            ("***", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[!a]", "a", true),
            ("[!a]", "!", true),
            ("[!a]", "b", false),
            ("a[]b", "ab", false),
            ("a[^]b", "a/b", true),
            ("a[./]b", "a/b", true),
            ("[a-]", "-", true),
            ("[\\]]", "]", true),
            ("[\\]-a]", "^", true),
            ("[[:digit:]x]", "7", true),
            ("[[:digit:]x]", "x", true),
            ("[[:digit:]x]", "y", false),
            ("[[:upper:]]", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*.tmp", ".tmp", true),
            ("[/x]*a/b", "/a/b", true),
        ] {
            let glob = Glob::parse(b"", pattern.as_bytes()).unwrap();
            assert_eq!(
                glob.matches(text.as_bytes()),
                expected,
                "{pattern:?} on {text:?}"
            );
        }
    }

    #[test]
    fn patterns_of_many_stars_end_in_bounded_time() {
        let glob = Glob::parse(b"", "*a".repeat(200).as_bytes()).unwrap();
        assert!(!glob.matches(&[b'a'; 199]));
        assert!(glob.matches(&[b'a'; 2000]));
    }

    proptest! {
        #[test]
        fn any_pattern_is_parsed_and_matched_without_panic(pattern: Vec<u8>, text: Vec<u8>) {
            if let Ok(glob) = Glob::parse(b"", &pattern) {
                glob.matches(&text);
            }
        }

        #[test]
        fn escaped_text_matches_itself_only(text in "[a-c/*?\\[\\]\\\\!^-]{1,12}", other in "[a-c/*?]{1,12}") {
            let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
            let glob = Glob::parse(b"", escaped.as_bytes()).unwrap();
            prop_assert!(glob.matches(text.as_bytes()));
            prop_assert_eq!(glob.matches(other.as_bytes()), text == other);
        }
    }
}
