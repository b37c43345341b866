//! `cert …`: the certificate that the server shows to its clients.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use backstop_format::{Digest, Fingerprint};
use backstop_server::Roots;
use x509_parser::certificate::X509Certificate;

use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::command::{Arguments, Command, Group};
use crate::{installation, output};

/// The commands below `cert`.
pub fn commands() -> Group {
    Group::new().command(
        "info",
        Command::new("Show the certificate of the server.", info),
    )
}

fn info(_: &Arguments) -> anyhow::Result<ExitCode> {
    output::out(&description(&leaf(&installation::roots())?)?);
    Ok(ExitCode::SUCCESS)
}

/// The server's own certificate in DER form.
///
/// # Errors
/// If there is none yet, or the file holds none.
pub fn leaf(roots: &Roots) -> anyhow::Result<Vec<u8>> {
    let path = roots.etc().join("proxy.pem");
    let text = std::fs::read(&path).with_context(|| {
        format!("unable to read the certificate {path:?}; the server makes one when it starts")
    })?;
    let (pem, _) = Pem::read(std::io::Cursor::new(text))
        .with_context(|| format!("{path:?} holds no certificate"))?;
    Ok(pem.contents)
}

/// What clients know a certificate by.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint(Digest::of(der).0)
}

fn description(der: &[u8]) -> anyhow::Result<String> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| anyhow::anyhow!("unable to parse the certificate - {error}"))?;
    let mut text = format!("Subject: {}\n", name(certificate.subject()));
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            let _ = match name {
                GeneralName::DNSName(name) => writeln!(text, "    DNS:{name}"),
                GeneralName::IPAddress(bytes) => writeln!(text, "    IP:{bytes:?}"),
                GeneralName::RFC822Name(name) => writeln!(text, "    EMAIL:{name}"),
                GeneralName::URI(name) => writeln!(text, "    URI:{name}"),
                _ => Ok(()),
            };
        }
    }
    let validity = certificate.validity();
    let key = certificate.public_key();
    let bits = match key.parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size(),
        Ok(PublicKey::EC(point)) => point.key_size(),
        _ => key.subject_public_key.data.len().saturating_mul(8),
    };
    let _ = write!(
        text,
        "Issuer: {}\nValidity:\n    Not Before: {}\n    Not After : {}\n\
         Fingerprint (sha256): {}\nPublic key type: {}\nPublic key bits: {bits}\n",
        name(certificate.issuer()),
        moment(validity.not_before),
        moment(validity.not_after),
        fingerprint(der),
        key_type(&key.algorithm.algorithm.to_id_string()),
    );
    Ok(text)
}

fn name(name: &X509Name<'_>) -> String {
    let registry = oid_registry();
    let parts: Vec<String> = name
        .iter_attributes()
        .map(|attribute| {
            let oid = attribute.attr_type();
            let key = oid2abbrev(oid, registry).map_or_else(|_| oid.to_id_string(), str::to_string);
            format!("{key} = {}", attribute.as_str().unwrap_or_default())
        })
        .collect();
    parts.join(", ")
}

/// `Nov 20 22:31:54 2026 GMT`.
fn moment(time: ASN1Time) -> String {
    match jiff::Timestamp::from_second(time.timestamp()) {
        Ok(time) => time.strftime("%b %e %H:%M:%S %Y GMT").to_string(),
        Err(_) => time.to_string(),
    }
}

/// The long name that OpenSSL has for a kind of key.
fn key_type(oid: &str) -> String {
    match oid {
        "1.2.840.113549.1.1.1" => "rsaEncryption",
        "1.2.840.10045.2.1" => "id-ecPublicKey",
        "1.3.101.112" => "ED25519",
        other => other,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_certificate_of_a_stock_server_is_described_as_stock_does() {
        let fixtures = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3"
        );
        let pem = std::fs::read(format!("{fixtures}/etc-proxmox-backup/proxy.pem")).unwrap();
        let (pem, _) = Pem::read(std::io::Cursor::new(pem)).unwrap();
        let capture: serde_json::Value = serde_json::from_slice(
            &std::fs::read(format!("{fixtures}/cli/061-manager-cert-info.json")).unwrap(),
        )
        .unwrap();
        assert_eq!(
            description(&pem.contents).unwrap(),
            capture["stdout"].as_str().unwrap()
        );
    }
}
