//! The ciphers that `node.cfg` allows (`ciphers-tls-1.2`, `ciphers-tls-1.3`): lists in the form of OpenSSL.
//!
//! Only ciphers with forward secrecy and authenticated encryption are ever offered, whatever a list names; a list chooses among
//! them and orders them. What it names beyond that is reported, not silently dropped, and never makes the server unreachable.

use rustls::crypto::aws_lc_rs::{DEFAULT_CIPHER_SUITES, cipher_suite};
use rustls::{ProtocolVersion, SupportedCipherSuite};
use serde_json::Value;

use crate::config::NodeConfig;

/// Every cipher that is known here, by its name in OpenSSL.
static KNOWN: [(&str, SupportedCipherSuite); 9] = [
    (
        "TLS_AES_256_GCM_SHA384",
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];
const LISTS: [(&str, ProtocolVersion); 2] = [
    ("ciphers-tls-1.3", ProtocolVersion::TLSv1_3),
    ("ciphers-tls-1.2", ProtocolVersion::TLSv1_2),
];

/// The ciphers to offer, in order of preference, and what to tell the administrator about the lists.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CipherChoice {
    pub(crate) suites: Vec<SupportedCipherSuite>,
    pub(crate) remarks: Vec<String>,
}

impl Default for CipherChoice {
    fn default() -> Self {
        Self {
            suites: DEFAULT_CIPHER_SUITES.to_vec(),
            remarks: Vec::new(),
        }
    }
}

impl CipherChoice {
    /// What the settings of the host allow.
    pub(crate) fn of_node(node: &NodeConfig) -> Self {
        let mut choice = Self {
            suites: Vec::new(),
            remarks: Vec::new(),
        };
        for (key, version) in LISTS {
            let defaults = DEFAULT_CIPHER_SUITES
                .iter()
                .filter(|suite| is_of(suite, version));
            let Some(list) = node.values.get(key).and_then(Value::as_str) else {
                choice.suites.extend(defaults);
                continue;
            };
            let (suites, unknown) = chosen(list, version);
            if !unknown.is_empty() {
                choice.remarks.push(format!(
                    "node.cfg: {key} names ciphers that this server does not offer: {}",
                    unknown.join(", ")
                ));
            }
            if suites.is_empty() {
                choice.remarks.push(format!(
                    "node.cfg: {key} leaves no cipher that this server offers, so the usual ones are used; it offers {}",
                    names(version).join(":")
                ));
                choice.suites.extend(defaults);
            } else {
                choice.suites.extend(suites);
            }
        }
        choice
    }
}

fn is_of(suite: &SupportedCipherSuite, version: ProtocolVersion) -> bool {
    suite.version().version == version
}

fn names(version: ProtocolVersion) -> Vec<&'static str> {
    let of_version = KNOWN.iter().filter(|(_, suite)| is_of(suite, version));
    of_version.map(|(name, _)| *name).collect()
}

/// The ciphers of a version that a list names, and the parts of it that name none.
fn chosen(list: &str, version: ProtocolVersion) -> (Vec<SupportedCipherSuite>, Vec<String>) {
    let mut kept: Vec<&'static str> = Vec::new();
    let mut banned: Vec<&'static str> = Vec::new();
    let mut unknown = Vec::new();
    for part in list.split([':', ',', ' ']).filter(|part| !part.is_empty()) {
        let (sign, text) = match part.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+" | "@"), rest)) => (sign, rest),
            _ => ("", part),
        };
        let found: Vec<&str> = names(version)
            .into_iter()
            .filter(|name| text.split('+').all(|word| fits(name, word)))
            .collect();
        match sign {
            "!" => {
                kept.retain(|name| !found.contains(name));
                banned.extend(found);
            }
            "-" => kept.retain(|name| !found.contains(name)),
            "+" => {
                let is_moved = |name: &&str| found.contains(name);
                let moved: Vec<&str> = kept.iter().copied().filter(|name| is_moved(name)).collect();
                kept.retain(|name| !is_moved(name));
                kept.extend(moved);
            }
            // An order by strength or a level of security: all that is offered is strong.
            "@" => {}
            _ if found.is_empty() => unknown.push(text.to_owned()),
            _ => {
                for name in found {
                    if !kept.contains(&name) && !banned.contains(&name) {
                        kept.push(name);
                    }
                }
            }
        }
    }
    let suites = kept
        .iter()
        .filter_map(|name| KNOWN.iter().find(|(known, _)| known == name))
        .map(|(_, suite)| *suite)
        .collect();
    (suites, unknown)
}

/// Whether one word of a list means a cipher.
fn fits(name: &str, word: &str) -> bool {
    match word {
        "ALL" | "DEFAULT" | "HIGH" => true,
        "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => name.starts_with("ECDHE"),
        "AESGCM" => name.contains("GCM"),
        "AES" | "AES128" | "AES256" | "CHACHA20" => name.contains(word),
        "ECDSA" | "aECDSA" => name.contains("ECDSA"),
        "RSA" | "aRSA" => name.contains("-RSA-"),
        "SHA256" | "SHA384" => name.ends_with(word),
        "TLSv1.2" => name.starts_with("ECDHE"),
        word => word == name,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::path::Path;

    fn choice(text: &str) -> (Vec<&'static str>, Vec<String>) {
        let node = NodeConfig::parse(Path::new("node.cfg"), text).unwrap();
        let choice = CipherChoice::of_node(&node);
        let name = |suite: &SupportedCipherSuite| {
            KNOWN.iter().find(|(_, known)| known == suite).unwrap().0
        };
        (choice.suites.iter().map(name).collect(), choice.remarks)
    }

    #[test]
    fn every_cipher_of_the_library_has_a_name_here_and_is_used_without_a_list() {
        let (names, remarks) = choice("");
        assert_eq!(names.len(), KNOWN.len());
        assert!(remarks.is_empty());
        let default = CipherChoice::default();
        assert!(
            default
                .suites
                .iter()
                .all(|suite| KNOWN.iter().any(|(_, known)| known == suite))
        );
    }

    #[test]
    fn a_list_chooses_and_orders() {
        let (names, remarks) = choice(
            "ciphers-tls-1.3: TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256\nciphers-tls-1.2: ECDHE+AESGCM:!aNULL:-AES128:@STRENGTH\n",
        );
        assert_eq!(
            names,
            [
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_AES_128_GCM_SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384"
            ]
        );
        assert!(remarks.is_empty(), "{remarks:?}");
    }

    #[test]
    fn what_is_not_offered_is_reported_and_an_empty_choice_does_not_close_the_server() {
        let (names, remarks) = choice("ciphers-tls-1.2: ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA\n");
        assert_eq!(names.len(), 4);
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].contains("AES128-SHA"), "{remarks:?}");
        let (names, remarks) = choice("ciphers-tls-1.2: AES128-SHA:!ALL\n");
        assert_eq!(names.len(), KNOWN.len());
        assert!(remarks[1].contains("leaves no cipher"), "{remarks:?}");
    }
}
