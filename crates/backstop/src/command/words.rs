//! Splits a line into words as a POSIX shell does: blanks, quotes and backslashes, and nothing else.

/// The words of a line, and whether all its quotes were closed.
pub fn split(line: &str) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    let mut quote: Option<char> = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t' | '\n') => {
                if inside {
                    words.push(std::mem::take(&mut word));
                    inside = false;
                }
            }
            (None, '\'' | '"') => {
                quote = Some(character);
                inside = true;
            }
            (None, '\\') => {
                word.extend(characters.next());
                inside = true;
            }
            (Some('"'), '\\') => match characters.peek() {
                Some('"' | '\\' | '$' | '`') => word.extend(characters.next()),
                _ => word.push('\\'),
            },
            (Some(open), character) if open == character => quote = None,
            (_, character) => {
                word.push(character);
                inside = true;
            }
        }
    }
    if inside {
        words.push(word);
    }
    (words, quote.is_none())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).0
    }

    #[test]
    fn quotes_and_backslashes_keep_blanks() {
        assert_eq!(
            words("cat  /a\\ b 'c d' \"e f\""),
            ["cat", "/a b", "c d", "e f"]
        );
        assert_eq!(
            words("echo '' \"a\\\"b\" \"a\\n\""),
            ["echo", "", "a\"b", "a\\n"]
        );
        assert_eq!(words("x'y'\"z\""), ["xyz"]);
        assert_eq!(words("   "), Vec::<String>::new());
    }

    #[test]
    fn an_open_quote_is_told() {
        assert!(!split("a 'b").1);
        assert!(split("a 'b'").1);
    }
}
