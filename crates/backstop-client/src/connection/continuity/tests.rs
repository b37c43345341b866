#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use backstop_format::Digest;
use backstop_format::continuity::MAX_VALIDITY;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;

use super::*;

const NOW: i64 = 1_800_000_000;

struct Holder {
    certificate: Vec<u8>,
    key: std::sync::Arc<dyn SigningKey>,
}

impl Holder {
    fn with(algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["server.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = aws_lc_rs::default_provider();
        Self {
            certificate,
            key: provider.key_provider.load_private_key(der).unwrap(),
        }
    }

    fn new() -> Self {
        Self::with(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn print(&self) -> Fingerprint {
        Fingerprint(Digest::of(&self.certificate).0)
    }

    fn sign(&self, number: u64, next: &Holder) -> Link {
        let mut link = Link {
            number,
            issued: NOW,
            expires: NOW + MAX_VALIDITY,
            certificate: self.certificate.clone(),
            next: next.print(),
            scheme: 0,
            signature: Vec::new(),
        };
        self.sign_anew(&mut link);
        link
    }

    fn sign_anew(&self, link: &mut Link) {
        let signer = self.key.choose_scheme(&SCHEMES).unwrap();
        link.scheme = signer.scheme().into();
        link.signature = signer.sign(&link.statement()).unwrap();
    }
}

/// The bytes of these links as a chain, whatever they are.
fn chain(links: &[Link]) -> Chain {
    let mut bytes = Chain::new().to_bytes();
    bytes.truncate(8);
    bytes.extend(u16::try_from(links.len()).unwrap().to_be_bytes());
    for link in links {
        let mut one = Chain::new();
        one.push(link.clone()).unwrap();
        bytes.extend(&one.to_bytes()[10..]);
    }
    Chain::from_bytes(&bytes).unwrap()
}

fn check(links: &[Link], pin: &Holder, known: u64, shown: &Holder) -> Result<Vouched, Unproven> {
    vouches(&chain(links), &pin.print(), known, &shown.print(), NOW)
}

#[test]
fn keys_of_every_kind_vouch_for_what_comes_next() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let (old, new) = (Holder::with(algorithm), Holder::new());
        let links = [old.sign(1, &new)];
        assert_eq!(
            check(&links, &old, 0, &new),
            Ok(Vouched {
                links: 1,
                number: 1
            }),
            "{algorithm:?}"
        );
    }
}

#[test]
fn whoever_missed_several_changes_follows_them_all() {
    let holders: Vec<Holder> = (0..4).map(|_| Holder::new()).collect();
    let links: Vec<Link> = (0..3)
        .map(|step| holders[step].sign(10 + step as u64, &holders[step + 1]))
        .collect();
    let vouched = check(&links, &holders[0], 0, &holders[3]).unwrap();
    assert_eq!((vouched.links, vouched.number), (3, 12));
    assert_eq!(
        check(&links, &holders[2], 11, &holders[3]).unwrap().links,
        1
    );
    assert_eq!(
        check(&links, &holders[0], 0, &holders[2]),
        Err(Unproven::OtherEnd(holders[3].print()))
    );
}

#[test]
fn a_stranger_gets_nowhere() {
    let (old, new, stranger) = (Holder::new(), Holder::new(), Holder::new());
    // The true chain, shown by somebody else.
    let links = [old.sign(1, &new)];
    assert_eq!(
        check(&links, &old, 0, &stranger),
        Err(Unproven::OtherEnd(new.print()))
    );
    // A link that the stranger signed in the name of the old certificate.
    let mut forged = old.sign(1, &stranger);
    let signer = stranger.key.choose_scheme(&SCHEMES).unwrap();
    forged.signature = signer.sign(&forged.statement()).unwrap();
    assert_eq!(
        check(&[forged], &old, 0, &stranger),
        Err(Unproven::Signature(1))
    );
    // A chain of the stranger's own.
    assert_eq!(
        check(&[stranger.sign(1, &new)], &old, 0, &new),
        Err(Unproven::UnknownStart)
    );
    assert_eq!(check(&[], &old, 0, &old), Err(Unproven::UnknownStart));
    // A link that somebody else signed hung on to what the old key signed.
    let hung = [old.sign(1, &new), stranger.sign(2, &stranger)];
    assert_eq!(check(&hung, &old, 0, &stranger), Err(Unproven::Broken(2)));
}

#[test]
fn what_was_once_true_is_not_true_for_ever() {
    // The server went back to its first certificate, and left the second for good.
    let (first, second) = (Holder::new(), Holder::new());
    let old = [first.sign(1, &second)];
    assert!(check(&old, &first, 0, &second).is_ok());
    assert_eq!(check(&old, &first, 2, &second), Err(Unproven::Old(1)));
    let whole = [first.sign(1, &second), second.sign(2, &first)];
    assert!(check(&whole, &second, 1, &first).is_ok());
    // The order of numbers counts within a chain, too.
    let third = Holder::new();
    let mixed = [first.sign(5, &second), second.sign(5, &third)];
    assert_eq!(check(&mixed, &first, 0, &third), Err(Unproven::Old(5)));
    // Long ago.
    let mut late = first.sign(1, &second);
    late.expires = NOW - 1;
    first.sign_anew(&mut late);
    assert_eq!(
        check(&[late], &first, 0, &second),
        Err(Unproven::NotCurrent(1))
    );
}

#[test]
fn weak_signatures_do_not_count() {
    let (old, new) = (Holder::with(&rcgen::PKCS_RSA_SHA256), Holder::new());
    let mut link = old.sign(1, &new);
    for scheme in [
        SignatureScheme::RSA_PKCS1_SHA1,
        SignatureScheme::RSA_PKCS1_SHA256,
    ] {
        let signer = old.key.choose_scheme(&[scheme]);
        link.scheme = scheme.into();
        if let Some(signer) = signer {
            link.signature = signer.sign(&link.statement()).unwrap();
        }
        assert_eq!(
            check(std::slice::from_ref(&link), &old, 0, &new),
            Err(Unproven::Signature(1))
        );
    }
}

#[test]
fn an_answer_that_is_no_chain_is_said_to_be_none() {
    let good = STANDARD.encode(Chain::new().to_bytes());
    assert!(parse(format!(r#"{{"data": {{"chain": "{good}"}}}}"#).as_bytes()).is_ok());
    for text in [
        "",
        "<html>",
        "[]",
        r#"{"data": null}"#,
        r#"{"data": {"chain": 5}}"#,
        r#"{"data": {"chain": "%"}}"#,
        r#"{"data": {"chain": "AAAA"}}"#,
    ] {
        assert!(
            matches!(parse(text.as_bytes()), Err(Unproven::Unreadable(_))),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_chain_vouches_for_nobody(at: prop::sample::Index, bit in 0..8_u32) {
        let (old, new) = (Holder::new(), Holder::new());
        let mut bytes = chain(&[old.sign(1, &new)]).to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = Chain::from_bytes(&bytes) {
            prop_assert!(vouches(&changed, &old.print(), 0, &new.print(), NOW).is_err());
        }
    }
}
