//! The continuity chain of a server's certificates: each old key signs which certificate comes next
//! (`docs/formats/certificate-chain.md`).
//!
//! Bytes only: who signs and who verifies is elsewhere, and nothing that was decoded here is trusted yet. Whatever the bytes say,
//! no more than [`MAX_BYTES`] are looked at or held.

use crate::digest::{Digest, Fingerprint};
use crate::error::{FormatError, Result};

/// Most links of a chain.
pub const MAX_LINKS: usize = 64;
/// Largest certificate, in bytes of DER.
pub const MAX_CERTIFICATE: usize = 8192;
/// Longest signature, in bytes.
pub const MAX_SIGNATURE: usize = 1024;
/// Largest chain, in bytes.
pub const MAX_BYTES: usize = HEAD + MAX_LINKS * (LINK + MAX_SIGNATURE + MAX_CERTIFICATE);
/// For how long a link can be good, in seconds: 732 days, two years and a bit.
pub const MAX_VALIDITY: i64 = 732 * 24 * 60 * 60;

/// First bytes of a chain.
const MAGIC: [u8; 8] = *b"BSCHAIN1";
/// Magic and number of links.
const HEAD: usize = 8 + 2;
/// A link without its certificate and signature.
const LINK: usize = 8 + 8 + 8 + 32 + 2 + 2 + 2;
/// What a signed statement begins with, so that it can be nothing else that the key of a TLS server signs: in TLS 1.3 another
/// text stands after the 64 spaces, in TLS 1.2 the server's own random bytes stand in the second half of them.
const PADDING: [u8; 64] = [b' '; 64];
/// What the statement is.
const CONTEXT: &[u8] = b"Backstop certificate continuity, version 1\0";
const WHAT: &str = "certificate chain";

/// One step: the key of `certificate` says that the certificate `next` takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Larger in each later link of the same server, so that an earlier link cannot be shown again as news.
    pub number: u64,
    /// When it was signed, in seconds since 1970.
    pub issued: i64,
    /// Until when it is good, in seconds since 1970; at most [`MAX_VALIDITY`] after `issued`.
    pub expires: i64,
    /// The old certificate, DER.
    pub certificate: Vec<u8>,
    /// The fingerprint of the new one.
    pub next: Fingerprint,
    /// The signature scheme, as TLS 1.3 numbers them.
    pub scheme: u16,
    /// The signature of [`Link::statement`] by the key of `certificate`.
    pub signature: Vec<u8>,
}

impl Link {
    /// The fingerprint of the old certificate.
    pub fn from(&self) -> Fingerprint {
        Fingerprint(Digest::of(&self.certificate).0)
    }

    /// The bytes that are signed.
    pub fn statement(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PADDING.len() + CONTEXT.len() + 3 * 8 + 2 * 32);
        bytes.extend(PADDING);
        bytes.extend(CONTEXT);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.issued.to_be_bytes());
        bytes.extend(self.expires.to_be_bytes());
        bytes.extend(self.from().as_bytes());
        bytes.extend(self.next.as_bytes());
        bytes
    }

    /// Whether it is good at `now`, in seconds since 1970. A clock of the signer that is a day ahead does no harm.
    pub fn is_current(&self, now: i64) -> bool {
        const CLOCKS: i64 = 24 * 60 * 60;
        let validity = self.expires.saturating_sub(self.issued);
        (0..=MAX_VALIDITY).contains(&validity)
            && self.issued.saturating_sub(CLOCKS) <= now
            && now <= self.expires
    }
}

/// The links, oldest first: each one's `next` is the certificate of the following one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    /// A chain without a link.
    pub fn new() -> Self {
        Self::default()
    }

    /// The links, oldest first.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The number of the last link; 0 when there is none.
    pub fn number(&self) -> u64 {
        self.links.last().map_or(0, |link| link.number)
    }

    /// The fingerprint that the last link leads to.
    pub fn end(&self) -> Option<Fingerprint> {
        self.links.last().map(|link| link.next)
    }

    /// The chain up to the last link that leads to `end`; without a link when none does.
    pub fn leading_to(&self, end: &Fingerprint) -> Self {
        let length = self.links.iter().rposition(|link| link.next == *end);
        let length = length.map_or(0, |position| position + 1);
        Self {
            links: self.links.iter().take(length).cloned().collect(),
        }
    }

    /// The links that lead from `start` to the end: from the last one that `start` signed. Empty when it signed none.
    pub fn since(&self, start: &Fingerprint) -> &[Link] {
        let position = self.links.iter().rposition(|link| link.from() == *start);
        position
            .and_then(|position| self.links.get(position..))
            .unwrap_or(&[])
    }

    /// Appends a link. What it does not continue is dropped, and so are the oldest links when there are too many.
    ///
    /// # Errors
    /// When certificate or signature are too large, or its number is not larger than that of the last link.
    pub fn push(&mut self, link: Link) -> Result<()> {
        check_sizes(link.certificate.len(), link.signature.len())?;
        if link.number <= self.number() {
            return Err(invalid(format!(
                "number {} after {}",
                link.number,
                self.number()
            )));
        }
        if self.end() != Some(link.from()) {
            self.links.clear();
        }
        self.links.push(link);
        let surplus = self.links.len().saturating_sub(MAX_LINKS);
        self.links.drain(..surplus);
        Ok(())
    }

    /// Drops the oldest links that are not good any more at `now`, in seconds since 1970.
    pub fn forget_expired(&mut self, now: i64) {
        let first = self.links.iter().position(|link| link.expires >= now);
        self.links.drain(..first.unwrap_or(self.links.len()));
    }

    /// The bytes of the chain.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(length_of(self.links.len()));
        for link in &self.links {
            bytes.extend(link.number.to_be_bytes());
            bytes.extend(link.issued.to_be_bytes());
            bytes.extend(link.expires.to_be_bytes());
            bytes.extend(link.next.as_bytes());
            bytes.extend(link.scheme.to_be_bytes());
            for part in [&link.signature, &link.certificate] {
                bytes.extend(length_of(part.len()));
                bytes.extend(part);
            }
        }
        bytes
    }

    /// Reads the bytes of a chain. Whether its links hang together and whether their signatures are good is not looked at.
    ///
    /// # Errors
    /// When they are not exactly one chain within its limits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(FormatError::TooLarge {
                what: WHAT,
                limit: MAX_BYTES as u64,
            });
        }
        let mut rest = bytes;
        let found = take(&mut rest, MAGIC.len())?;
        if found != MAGIC {
            let mut magic = [0; 8];
            magic.copy_from_slice(found);
            return Err(FormatError::UnknownMagic {
                what: WHAT,
                found: magic,
            });
        }
        let count = usize::from(u16::from_be_bytes(array(&mut rest)?));
        if count > MAX_LINKS {
            return Err(invalid(format!("it has {count} links")));
        }
        let mut links = Vec::with_capacity(count);
        for _ in 0..count {
            let number = u64::from_be_bytes(array(&mut rest)?);
            let issued = i64::from_be_bytes(array(&mut rest)?);
            let expires = i64::from_be_bytes(array(&mut rest)?);
            let next = Fingerprint(array(&mut rest)?);
            let scheme = u16::from_be_bytes(array(&mut rest)?);
            let signature = part(&mut rest)?;
            let certificate = part(&mut rest)?;
            check_sizes(certificate.len(), signature.len())?;
            links.push(Link {
                number,
                issued,
                expires,
                certificate: certificate.to_vec(),
                next,
                scheme,
                signature: signature.to_vec(),
            });
        }
        if !rest.is_empty() {
            return Err(invalid(format!("{} bytes follow it", rest.len())));
        }
        Ok(Self { links })
    }
}

fn invalid(reason: String) -> FormatError {
    FormatError::InvalidChain { reason }
}

fn check_sizes(certificate: usize, signature: usize) -> Result<()> {
    if certificate == 0 || certificate > MAX_CERTIFICATE {
        return Err(invalid(format!("a certificate of {certificate} bytes")));
    }
    if signature == 0 || signature > MAX_SIGNATURE {
        return Err(invalid(format!("a signature of {signature} bytes")));
    }
    Ok(())
}

/// A length as it is stored. All lengths are checked against far smaller limits before.
fn length_of(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, after) = rest
        .split_at_checked(length)
        .ok_or_else(|| invalid("it ends early".to_owned()))?;
    *rest = after;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let taken = take(rest, N)?;
    taken
        .try_into()
        .map_err(|_| invalid("it ends early".to_owned()))
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = u16::from_be_bytes(array(rest)?);
    take(rest, usize::from(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_link() -> impl Strategy<Value = Link> {
        (
            any::<[i64; 3]>(),
            vec(any::<u8>(), 1..80),
            any::<[u8; 32]>(),
            any::<u16>(),
            vec(any::<u8>(), 1..80),
        )
            .prop_map(|(numbers, certificate, next, scheme, signature)| Link {
                number: numbers[0].unsigned_abs(),
                issued: numbers[1],
                expires: numbers[2],
                certificate,
                next: Fingerprint(next),
                scheme,
                signature,
            })
    }

    fn link(number: u64, from: u8, to: u8) -> Link {
        Link {
            number,
            issued: 1_000_000,
            expires: 1_000_000 + MAX_VALIDITY,
            certificate: vec![from],
            next: Fingerprint(Digest::of(&[to]).0),
            scheme: 0x0403,
            signature: vec![1],
        }
    }

    fn print(certificate: u8) -> Fingerprint {
        Fingerprint(Digest::of(&[certificate]).0)
    }

    fn chain(steps: &[(u8, u8)]) -> Chain {
        let mut chain = Chain::new();
        for (number, (from, to)) in (1..).zip(steps) {
            chain.push(link(number, *from, *to)).unwrap();
        }
        chain
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(links in vec(any_link(), 0..MAX_LINKS)) {
            let chain = Chain { links };
            let bytes = chain.to_bytes();
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(Chain::from_bytes(&bytes).unwrap(), chain);
        }

        #[test]
        fn a_chain_that_lost_or_gained_bytes_is_refused(links in vec(any_link(), 0..4), cut: prop::sample::Index, more: u8) {
            let mut bytes = Chain { links }.to_bytes();
            let cut = cut.index(bytes.len());
            prop_assert!(Chain::from_bytes(&bytes[..cut]).is_err());
            bytes.push(more);
            prop_assert!(Chain::from_bytes(&bytes).is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in vec(any::<u8>(), 0..300), with_head: bool) {
            let mut input = Vec::new();
            if with_head {
                input.extend(MAGIC);
            }
            input.extend(bytes);
            if let Ok(chain) = Chain::from_bytes(&input) {
                prop_assert_eq!(chain.to_bytes(), input);
            }
        }

        #[test]
        fn each_field_is_part_of_what_is_signed(one in any_link(), other in any_link()) {
            let changes: [fn(&mut Link, &Link); 5] = [
                |link, other| link.number = other.number,
                |link, other| link.issued = other.issued,
                |link, other| link.expires = other.expires,
                |link, other| link.certificate = other.certificate.clone(),
                |link, other| link.next = other.next,
            ];
            for change in changes {
                let mut changed = one.clone();
                change(&mut changed, &other);
                prop_assert_eq!(changed == one, changed.statement() == one.statement());
            }
        }
    }

    #[test]
    fn the_way_from_a_certificate_is_found_and_that_from_a_stranger_is_not() {
        let chain = chain(&[(1, 2), (2, 3), (3, 4)]);
        let numbers = |start| -> Vec<u64> {
            let links = chain.since(&print(start)).iter();
            links.map(|link| link.number).collect()
        };
        assert_eq!(numbers(1), [1, 2, 3]);
        assert_eq!(numbers(3), [3]);
        assert_eq!(numbers(4), [] as [u64; 0]);
        assert_eq!(numbers(9), [] as [u64; 0]);
        assert_eq!(chain.end(), Some(print(4)));
        assert_eq!(chain.leading_to(&print(3)).links().len(), 2);
        assert!(chain.leading_to(&print(1)).links().is_empty());
    }

    #[test]
    fn a_certificate_that_comes_back_starts_from_its_last_link() {
        let chain = chain(&[(1, 2), (2, 1), (1, 3)]);
        assert_eq!(chain.since(&print(1)).len(), 1);
        assert_eq!(chain.since(&print(2)).len(), 2);
    }

    #[test]
    fn a_chain_stays_short_and_whole_and_its_numbers_grow() {
        let mut chain = Chain::new();
        for number in 0..MAX_LINKS + 5 {
            let step = u8::try_from(number).unwrap();
            chain.push(link(number as u64 + 1, step, step + 1)).unwrap();
        }
        assert_eq!(chain.links().len(), MAX_LINKS);
        assert_eq!(chain.links()[0].number, 6);
        assert!(chain.push(link(chain.number(), 69, 70)).is_err());
        // What does not continue the chain begins a new one, with a larger number all the same.
        assert!(chain.push(link(1, 200, 201)).is_err());
        chain.push(link(1000, 200, 201)).unwrap();
        assert_eq!(chain.links().len(), 1);
        chain.forget_expired(1_000_001 + MAX_VALIDITY);
        assert!(chain.links().is_empty());
    }

    #[test]
    fn sizes_are_limited() {
        for (certificate, signature) in [
            (0, 1),
            (1, 0),
            (MAX_CERTIFICATE + 1, 1),
            (1, MAX_SIGNATURE + 1),
        ] {
            let mut link = link(1, 1, 2);
            link.certificate = vec![0; certificate];
            link.signature = vec![0; signature];
            assert!(Chain::new().push(link.clone()).is_err());
            let bytes = Chain { links: vec![link] }.to_bytes();
            assert!(Chain::from_bytes(&bytes).is_err());
        }
        let many = Chain {
            links: vec![link(1, 1, 2); MAX_LINKS + 1],
        };
        assert!(Chain::from_bytes(&many.to_bytes()).is_err());
        assert!(Chain::from_bytes(&vec![0; MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn a_link_is_good_in_its_time_alone() {
        let link = link(1, 1, 2);
        assert!(link.is_current(1_000_000));
        assert!(link.is_current(1_000_000 - 86_400));
        assert!(!link.is_current(1_000_000 - 86_401));
        assert!(link.is_current(1_000_000 + MAX_VALIDITY));
        assert!(!link.is_current(1_000_001 + MAX_VALIDITY));
        let mut eternal = link.clone();
        eternal.expires += 1;
        assert!(!eternal.is_current(1_000_000));
        let mut reversed = link;
        reversed.expires = 0;
        assert!(!reversed.is_current(0));
        reversed.issued = i64::MIN;
        reversed.expires = i64::MAX;
        assert!(!reversed.is_current(0));
    }
}
