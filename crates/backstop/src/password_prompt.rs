//! Reading a secret from the terminal. Nothing of it shows but a star for each character, and afterwards the terminal is as it
//! was, also when Ctrl-C ends the program.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

const TERMINAL: &str = "/dev/tty";
/// Longest secret, in bytes. Its memory is taken at once, so that no copy stays behind when it grows.
const LIMIT: usize = 1024;

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CLEAR_LINE: u8 = 0x15;
const CLEAR_WORD: u8 = 0x17;
const DELETE: u8 = 0x7f;

/// Asks for a secret at the terminal that this process belongs to.
///
/// # Errors
/// There is no terminal, it was closed, or the secret is longer than 1024 bytes. After Ctrl-C this only returns, with
/// [`io::ErrorKind::Interrupted`], where something else in this process takes care of SIGINT.
pub fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = File::options().read(true).write(true).open(TERMINAL)?;
    let hidden = HiddenInput::start(terminal.try_clone()?)?;
    terminal.write_all(prompt.as_bytes())?;
    let mut secret = Zeroizing::new(Vec::with_capacity(LIMIT));
    let mut key = Zeroizing::new([0]);
    let outcome = loop {
        match terminal.read(key.as_mut_slice()) {
            Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Err(error),
        }
        match enter(&mut secret, key[0]) {
            Step::Show { stars, erased } => {
                let erased = "\x08 \x08".repeat(erased);
                terminal.write_all(format!("{}{erased}", "*".repeat(stars)).as_bytes())?;
            }
            Step::Done => break Ok(()),
            Step::Failed(kind) => break Err(kind.into()),
        }
    };
    terminal.write_all(b"\n")?;
    drop(hidden);
    if let Err(error) = outcome {
        if error.kind() == io::ErrorKind::Interrupted {
            kill_process(getpid(), Signal::INT)?;
        }
        return Err(error);
    }
    match std::str::from_utf8(&secret) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it contains bad characters",
        )),
    }
}

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many characters came and so many went.
    Show {
        stars: usize,
        erased: usize,
    },
    Done,
    Failed(io::ErrorKind),
}

fn enter(secret: &mut Vec<u8>, key: u8) -> Step {
    let mut stars = 0;
    let before = characters(secret);
    match key {
        b'\n' | b'\r' => return Step::Done,
        INTERRUPT => return Step::Failed(io::ErrorKind::Interrupted),
        END if secret.is_empty() => return Step::Failed(io::ErrorKind::UnexpectedEof),
        BACKSPACE | DELETE => while secret.pop().is_some_and(continues) {},
        CLEAR_LINE => secret.clear(),
        CLEAR_WORD => {
            while secret.pop_if(|byte| *byte == b' ').is_some() {}
            while secret.pop_if(|byte| *byte != b' ').is_some() {}
        }
        0..b' ' => {}
        _ if secret.len() == LIMIT => return Step::Failed(io::ErrorKind::InvalidInput),
        _ => {
            secret.push(key);
            stars = usize::from(!continues(key));
        }
    }
    Step::Show {
        stars,
        erased: before.saturating_sub(characters(secret)),
    }
}

/// Whether a byte of UTF-8 is not the first of its character.
fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn characters(secret: &[u8]) -> usize {
    secret.iter().filter(|byte| !continues(**byte)).count()
}

/// A terminal that shows nothing of what is typed and sends each key at once, until this is dropped.
struct HiddenInput {
    terminal: File,
    before: Termios,
}

impl HiddenInput {
    fn start(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Now, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// What remains after these keys, and what the terminal shows.
    fn typed(keys: &str) -> (String, usize) {
        let mut secret = Vec::new();
        let mut shown = 0;
        for key in keys.bytes() {
            match enter(&mut secret, key) {
                Step::Show { stars, erased } => shown = shown + stars - erased,
                other => panic!("{key}: {other:?}"),
            }
        }
        (String::from_utf8(secret).unwrap(), shown)
    }

    #[test]
    fn each_character_is_one_star_whatever_its_length() {
        assert_eq!(typed("añ€😀"), ("añ€😀".into(), 4));
        assert_eq!(typed("añ€😀\x7f\x08"), ("añ".into(), 2));
        assert_eq!(typed("\x7fx\x7f\x7f"), (String::new(), 0));
    }

    #[test]
    fn words_and_lines_can_be_taken_back_and_other_keys_do_nothing() {
        assert_eq!(typed("one two \x17"), ("one ".into(), 4));
        assert_eq!(typed("one two\x15x"), ("x".into(), 1));
        assert_eq!(typed("a\x1a\x00\x04b"), ("ab".into(), 2));
    }

    #[test]
    fn a_line_an_interrupt_and_the_end_of_input_end_it() {
        assert_eq!(enter(&mut Vec::new(), b'\r'), Step::Done);
        let ended = Step::Failed(io::ErrorKind::UnexpectedEof);
        assert_eq!(enter(&mut Vec::new(), END), ended);
        let interrupted = Step::Failed(io::ErrorKind::Interrupted);
        assert_eq!(enter(&mut b"x".to_vec(), INTERRUPT), interrupted);
        let long = Step::Failed(io::ErrorKind::InvalidInput);
        assert_eq!(enter(&mut vec![b'x'; LIMIT], b'x'), long);
    }
}
