//! `cert …`: the certificate that the server shows to its clients, and the one that takes its place.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use backstop_format::{Digest, Fingerprint};
use backstop_server::Roots;
use backstop_server::access::AccessControl;
use backstop_server::certificate_change::{self, CertificatePair, Outcome};
use backstop_server::server::host_name;
use serde_json::{Value, json};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;

use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::configuration;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::installation;
use crate::output::{self, Column, OUTPUT_FORMAT, Record};

const GRACE: Parameter = Parameter::text(
    "grace",
    "How long to announce the new certificate before it is used, such as '36h' or '7d'; without it, what 'cert grace' says.",
)
.checked(is_grace);
const NOW: Parameter = Parameter::flag(
    "now",
    "Use the new certificate at once. Peers that are Backstop servers learn of it from the continuity chain.",
);

/// The certificate that is announced.
const NEXT: Record = Record::new(&[
    Column::text("fingerprint"),
    Column::text("subject"),
    Column::text("issuer"),
    Column::text("switch-at").rendered(|value, _| Ok(time(value))),
]);

fn is_grace(text: &str) -> Result<(), String> {
    certificate_change::parse_grace(text).map(|_| ())
}

/// The commands below `cert`.
pub fn commands() -> Group {
    let changing = |help, action| Command::new(help, action).option(GRACE).option(NOW);
    Group::new()
        .command(
            "info",
            Command::new("Show the certificate of the server.", info),
        )
        .command(
            "update",
            changing(
                "Make the server's keys and certificate where they are missing, or with --force a new certificate.",
                update,
            )
            .option(Parameter::flag(
                "force",
                "Make a new certificate that signs itself, and announce it.",
            )),
        )
        .command(
            "upload",
            changing("Announce a certificate from files.", upload)
                .argument(Parameter::path(
                    "certificates",
                    "The certificate and those of its authorities, PEM.",
                ))
                .optional_argument(Parameter::path(
                    "key",
                    "Its private key, PEM; without it, the key that is in use.",
                )),
        )
        .command(
            "next",
            Command::new("Show the certificate that is announced.", next).option(OUTPUT_FORMAT),
        )
        .command(
            "switch",
            Command::new("Use the certificate that is announced at once.", switch),
        )
        .command(
            "cancel",
            Command::new("Withdraw the certificate that is announced.", cancel),
        )
        .command(
            "grace",
            Command::new(
                "Show or set how long certificates are announced before they are used.",
                grace,
            )
            .optional_argument(
                Parameter::text("time", "A time span such as '36h' or '7d'.").checked(is_grace),
            ),
        )
}

/// For how long the command line wants a certificate to be announced.
fn wanted_grace(arguments: &Arguments) -> anyhow::Result<Option<i64>> {
    if arguments.flag("now") {
        return Ok(Some(0));
    }
    let grace = arguments
        .text("grace")
        .map(certificate_change::parse_grace)
        .transpose();
    grace.map_err(|reason| anyhow!("parameter verification failed - 'grace': {reason}"))
}

fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = Arc::new(configuration());
    AccessControl::open(Arc::clone(&store)).context("unable to make the keys of the server")?;
    if arguments.flag("force") || !store.path("proxy.pem").exists() {
        let pair = CertificatePair::self_signed(&host_name())?;
        let outcome = certificate_change::announce(&store, &pair, wanted_grace(arguments)?)?;
        report(outcome);
    }
    Ok(ExitCode::SUCCESS)
}

fn upload(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let read = |name| -> anyhow::Result<Option<String>> {
        let path = arguments.given_path(name);
        path.map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("unable to read {path:?}"))
        })
        .transpose()
    };
    let store = configuration();
    let certificates = read("certificates")?.unwrap_or_default();
    let pair = CertificatePair::of(&store, &certificates, read("key")?.as_deref())?;
    report(certificate_change::announce(
        &store,
        &pair,
        wanted_grace(arguments)?,
    )?);
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error what became of a change, as stock servers are silent about it.
fn report(outcome: Outcome) {
    output::err(&match outcome {
        Outcome::InUse(fingerprint) => {
            format!("The certificate {fingerprint} is in use already.\n")
        }
        Outcome::Announced(fingerprint, switch_at) => format!(
            "The certificate {fingerprint} is announced, and used from {} on. To use it at once: proxmox-backup-manager cert switch\n",
            time(&switch_at.into())
        ),
        Outcome::Switched(fingerprint) => format!(
            "The certificate {fingerprint} has taken the place of the one before; a running server uses it within seconds.\n"
        ),
    });
}

fn time(seconds: &Value) -> String {
    output::time::local(seconds.as_i64().unwrap_or_default())
}

fn next(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let next = certificate_change::next(&configuration())?;
    let next = next.ok_or(certificate_change::ChangeError::NothingAnnounced)?;
    let (_, certificate) = X509Certificate::from_der(next.certificate.leaf_der())
        .map_err(|error| anyhow!("unable to parse the certificate - {error}"))?;
    let record = json!({
        "fingerprint": next.certificate.fingerprint().to_string(),
        "subject": name(certificate.subject()),
        "issuer": name(certificate.issuer()),
        "switch-at": next.switch_at,
    });
    output::print_record(&NEXT, &record, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn switch(_: &Arguments) -> anyhow::Result<ExitCode> {
    let fingerprint = certificate_change::switch_now(&configuration())?;
    report(Outcome::Switched(fingerprint));
    Ok(ExitCode::SUCCESS)
}

fn cancel(_: &Arguments) -> anyhow::Result<ExitCode> {
    let fingerprint = certificate_change::withdraw(&configuration())?;
    output::err(&format!(
        "The certificate {fingerprint} is no longer announced.\n"
    ));
    Ok(ExitCode::SUCCESS)
}

fn grace(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = configuration();
    match arguments.text("time").map(certificate_change::parse_grace) {
        Some(seconds) => {
            let seconds = seconds.map_err(anyhow::Error::msg)?;
            certificate_change::set_grace(&store, Some(seconds))?;
        }
        None => {
            let seconds = certificate_change::grace(&store)?;
            let span = jiff::SignedDuration::from_secs(seconds);
            output::out(&format!("{span:#}\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
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
