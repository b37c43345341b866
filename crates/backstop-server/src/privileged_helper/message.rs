//! What the server and its helper say to each other: one datagram a request, one an answer.
//!
//! ```text
//! request   = version(1) verb(1) count(1) field{count}
//! field     = length(2, little endian) bytes
//! answer    = version(1) outcome(1) text
//! ```
//!
//! A request is at most [`MAX_REQUEST`] bytes, an answer at most [`MAX_ANSWER`]. Every field is checked against its own limits
//! before anything is done with it; whatever does not fit is refused as a whole. Neither side trusts the other.

use std::fmt;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

/// Changes with the form of the messages; both sides are the same executable.
const VERSION: u8 = 1;
/// Longest request in bytes.
pub(super) const MAX_REQUEST: usize = 8 * 1024;
/// Longest answer in bytes.
pub(super) const MAX_ANSWER: usize = 2 * 1024;
const MAX_NAME: usize = 64;
const MAX_PASSWORD: usize = 1024;
const MAX_PATH: usize = 4096;

/// What the helper is asked to do; these are all the things that it can.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Check a system user's password and account.
    Authenticate {
        user: String,
        password: Zeroizing<String>,
        peer: Option<IpAddr>,
    },
    /// Set a system user's password, for `caller`, who is the user or `root` and proves it.
    ChangePassword {
        user: String,
        new: Zeroizing<String>,
        caller: String,
        confirmation: Option<Zeroizing<String>>,
        peer: Option<IpAddr>,
    },
    /// Make the directory of a datastore for the service user.
    MakeDirectory { path: PathBuf },
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authenticate { user, .. } => write!(f, "Authenticate({user:?}, …)"),
            Self::ChangePassword { user, caller, .. } => {
                write!(f, "ChangePassword({user:?} for {caller:?}, …)")
            }
            Self::MakeDirectory { path } => write!(f, "MakeDirectory({path:?})"),
        }
    }
}

/// A message that is none of those described above. The reason never repeats what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not understood: {0}")]
pub(super) struct MessageError(&'static str);

impl Request {
    /// The bytes of the request.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, MessageError> {
        let peer_text = |peer: &Option<IpAddr>| peer.map(|ip| ip.to_string()).unwrap_or_default();
        // The capacity keeps the buffer from growing, which would leave a copy of a secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_REQUEST));
        let mut put = |verb: u8, fields: &[&[u8]]| {
            bytes.extend([VERSION, verb, u8::try_from(fields.len()).unwrap_or(u8::MAX)]);
            for field in fields {
                let length = u16::try_from(field.len()).map_err(|_| MessageError("too long"))?;
                if bytes.len() + 2 + field.len() > MAX_REQUEST {
                    return Err(MessageError("too long"));
                }
                bytes.extend(length.to_le_bytes());
                bytes.extend_from_slice(field);
            }
            Ok(())
        };
        match self {
            Self::Authenticate {
                user,
                password,
                peer,
            } => put(
                1,
                &[
                    user.as_bytes(),
                    password.as_bytes(),
                    peer_text(peer).as_bytes(),
                ],
            )?,
            Self::ChangePassword {
                user,
                new,
                caller,
                confirmation,
                peer,
            } => put(
                2,
                &[
                    user.as_bytes(),
                    new.as_bytes(),
                    caller.as_bytes(),
                    confirmation
                        .as_ref()
                        .map_or(&[][..], |text| text.as_bytes()),
                    peer_text(peer).as_bytes(),
                ],
            )?,
            Self::MakeDirectory { path } => put(3, &[path.as_os_str().as_encoded_bytes()])?,
        }
        // What the other side would refuse is not sent.
        Self::decode(&bytes)?;
        Ok(bytes)
    }

    /// Understands and checks a request.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_REQUEST {
            return Err(MessageError("too long"));
        }
        let [VERSION, verb, count, rest @ ..] = bytes else {
            return Err(MessageError("another version, or too short"));
        };
        let mut fields = Fields { rest };
        let request = match (verb, count) {
            (1, 3) => Self::Authenticate {
                user: fields.name()?,
                password: fields.password()?.ok_or(MessageError("no password"))?,
                peer: fields.peer()?,
            },
            (2, 5) => Self::ChangePassword {
                user: fields.name()?,
                new: fields.password()?.ok_or(MessageError("no password"))?,
                caller: fields.name()?,
                confirmation: fields.password()?,
                peer: fields.peer()?,
            },
            (3, 1) => Self::MakeDirectory {
                path: fields.path()?,
            },
            _ => return Err(MessageError("unknown verb or number of fields")),
        };
        if fields.rest.is_empty() {
            Ok(request)
        } else {
            Err(MessageError("something follows the last field"))
        }
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn text(&mut self, limit: usize) -> Result<&'a str, MessageError> {
        let short = MessageError("a field is cut off");
        let (length, rest) = self.rest.split_first_chunk::<2>().ok_or(short)?;
        let length = usize::from(u16::from_le_bytes(*length));
        if length > limit {
            return Err(MessageError("a field is too long"));
        }
        let (field, rest) = rest.split_at_checked(length).ok_or(short)?;
        self.rest = rest;
        let text = std::str::from_utf8(field).map_err(|_| MessageError("a field is no text"))?;
        if text.contains('\0') {
            return Err(MessageError("a field holds a NUL"));
        }
        Ok(text)
    }

    /// The name of a system user. It reaches PAM modules, and through them programs and files.
    fn name(&mut self) -> Result<String, MessageError> {
        let name = self.text(MAX_NAME)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '\\');
        if name.is_empty() || name.starts_with(['-', '.']) || name.contains(odd) {
            return Err(MessageError("not the name of a system user"));
        }
        Ok(name.to_owned())
    }

    fn password(&mut self) -> Result<Option<Zeroizing<String>>, MessageError> {
        let text = self.text(MAX_PASSWORD)?;
        Ok((!text.is_empty()).then(|| Zeroizing::new(text.to_owned())))
    }

    fn peer(&mut self) -> Result<Option<IpAddr>, MessageError> {
        match self.text(MAX_NAME)? {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| MessageError("not an address")),
        }
    }

    fn path(&mut self) -> Result<PathBuf, MessageError> {
        let text = self.text(MAX_PATH)?;
        let path = Path::new(text);
        let is_plain =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return Err(MessageError("not an absolute path without '..'"));
        }
        // Without what a text may hold, too: double slashes and single dots.
        Ok(path.components().collect())
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was done.
    Done,
    /// It was refused: wrong password, locked account, not allowed. The text tells an administrator why.
    Refused(String),
    /// It could not be done; the text tells why.
    Failed(String),
}

impl Answer {
    /// The bytes of the answer; a long text is cut.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (outcome, text) = match self {
            Self::Done => (0, ""),
            Self::Refused(text) => (1, text.as_str()),
            Self::Failed(text) => (2, text.as_str()),
        };
        let mut bytes = vec![VERSION, outcome];
        let mut end = text.len().min(MAX_ANSWER - bytes.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        bytes.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
        bytes
    }

    /// Understands an answer. Its text is made fit for one line of a log.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let [VERSION, outcome, text @ ..] = bytes else {
            return Err(MessageError("another version, or too short"));
        };
        if bytes.len() > MAX_ANSWER {
            return Err(MessageError("too long"));
        }
        let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
        match outcome {
            0 => Ok(Self::Done),
            1 => Ok(Self::Refused(text)),
            2 => Ok(Self::Failed(text)),
            _ => Err(MessageError("unknown outcome")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn requests() -> Vec<Request> {
        let secret = |text: &str| Zeroizing::new(text.to_owned());
        vec![
            Request::Authenticate {
                user: "root".into(),
                password: secret("Very-Secret"),
                peer: Some("2001:db8::1".parse().unwrap()),
            },
            Request::ChangePassword {
                user: "alice".into(),
                new: secret("Very-Secret"),
                caller: "alice".into(),
                confirmation: Some(secret("Very-Secret-2")),
                peer: None,
            },
            Request::MakeDirectory {
                path: "/mnt/backups/store1".into(),
            },
        ]
    }

    #[test]
    fn what_is_sent_arrives_and_no_secret_is_shown() {
        for request in requests() {
            let bytes = request.encode().unwrap();
            assert_eq!(Request::decode(&bytes).unwrap(), request);
            assert!(!format!("{request:?}").contains("Very-Secret"));
            for end in 0..bytes.len() {
                assert!(Request::decode(&bytes[..end]).is_err(), "{request:?} {end}");
            }
            assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        for answer in [
            Answer::Done,
            Answer::Refused("no".into()),
            Answer::Failed("é".repeat(5000)),
        ] {
            let bytes = answer.encode();
            assert!(bytes.len() <= MAX_ANSWER);
            let decoded = Answer::decode(&bytes).unwrap();
            assert_eq!(
                std::mem::discriminant(&decoded),
                std::mem::discriminant(&answer)
            );
        }
    }

    #[test]
    fn names_and_paths_that_could_mean_something_else_are_refused() {
        for user in [
            "",
            "-f",
            "../x",
            "a b",
            "a:b",
            "a/b",
            "a\nb",
            "a\0b",
            ".x",
            &"a".repeat(65),
        ] {
            let request = Request::Authenticate {
                user: user.to_owned(),
                password: Zeroizing::new("x".into()),
                peer: None,
            };
            assert!(request.encode().is_err(), "{user:?}");
        }
        for path in [
            "",
            "a/b",
            "/a/../b",
            "..",
            "/a\0b",
            &format!("/{}", "a".repeat(4096)),
        ] {
            let request = Request::MakeDirectory { path: path.into() };
            assert!(request.encode().is_err(), "{path:?}");
        }
        let request = Request::MakeDirectory {
            path: "/a//b/./c/".into(),
        };
        let decoded = Request::decode(&request.encode().unwrap()).unwrap();
        assert_eq!(
            decoded,
            Request::MakeDirectory {
                path: "/a/b/c".into()
            }
        );
    }

    #[test]
    fn an_answer_is_one_line() {
        let answer = Answer::decode(&[VERSION, 1, b'a', b'\n', b'b']).unwrap();
        assert_eq!(answer, Answer::Refused("a b".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_either_side_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes);
            let mut near = vec![VERSION, 2, 5];
            near.extend(&bytes);
            if let Ok(request) = Request::decode(&near) {
                let again = Request::decode(&request.encode().unwrap()).unwrap();
                prop_assert_eq!(again, request);
            }
        }
    }
}
