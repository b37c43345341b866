//! What is told of certificates: that of this server, and those of remotes.

use backstop_client::connection::pins::PinChange;
use backstop_notify::Severity;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Notifier, events};
use crate::api::nodes::certificates::describe;
use crate::server::Server;
use crate::tls::Certificate;

const DAY: i64 = 86_400;
/// How many days before its end it is told of, each once.
const STAGES: [i64; 5] = [30, 14, 7, 3, 1];

/// How near its end a certificate is: the number of stages that it has passed.
fn stage(left: i64) -> usize {
    let passed = STAGES.iter().filter(|days| left <= **days * DAY).count();
    passed + usize::from(left <= 0)
}

/// A certificate that lives for a short time by intent, as those of some authorities do, is told of when a third of it is left.
fn is_near_end(lifetime: i64, left: i64) -> bool {
    left <= (lifetime / 3).min(STAGES[0] * DAY)
}

/// Remembers which certificate was told of, and how near its end it was then.
#[derive(Debug, Default)]
pub(crate) struct CertificateWatch {
    told: Mutex<(String, usize)>,
}

impl CertificateWatch {
    /// Tells of the certificate in use when its end has come nearer. Blocks for a small file.
    pub(crate) fn look(&self, server: &Server) {
        let certificate = server.certificates().current();
        let now = Timestamp::now().as_second();
        let left = certificate.not_after().saturating_sub(now);
        let lifetime = certificate
            .not_after()
            .saturating_sub(certificate.not_before());
        let stage = match is_near_end(lifetime, left) {
            true => stage(left),
            false => 0,
        };
        let this = (certificate.fingerprint().to_string(), stage);
        {
            let mut told = self.told.lock();
            if *told == this {
                return;
            }
            *told = this;
        }
        if stage > 0 {
            server.notifier().certificate_expires(&certificate, now);
        }
    }
}

fn text(info: &Value, key: &str) -> Value {
    info.get(key).cloned().unwrap_or_default()
}

impl Notifier {
    fn certificate_expires(&self, certificate: &Certificate, now: i64) {
        let info = describe(certificate).unwrap_or_default();
        let left = certificate.not_after().saturating_sub(now);
        let severity = match left <= STAGES[3] * DAY {
            true => Severity::Error,
            false => Severity::Warning,
        };
        let days = left.div_euclid(DAY).max(0);
        let data = json!({
            "days": days,
            "expired": left <= 0,
            "not-after": certificate.not_after(),
            "subject": text(&info, "subject"),
            "issuer": text(&info, "issuer"),
            "fingerprint": certificate.fingerprint().to_string(),
            // in letters, as numbers are no other reason
            "text": match stage(left) { 0 => "", 1 => "month", 2 => "fortnight", 3 => "week", 4 => "days", 5 => "day", _ => "over" },
        });
        let fields = [("type", "certificate")];
        let event = self
            .host
            .event(now, severity, "certificate-expires", data, &fields);
        self.notify(&event);
    }

    /// Tells that the server uses another certificate; `signed`: the key of the one before vouches for it. Blocks for a small file.
    pub(crate) fn certificate_changed(
        &self,
        before: &Certificate,
        now: &Certificate,
        signed: bool,
    ) {
        let time = Timestamp::now().as_second();
        let data = json!({
            "former-fingerprint": before.fingerprint().to_string(),
            "fingerprint": now.fingerprint().to_string(),
            "not-after": now.not_after(),
            "signed": signed,
        });
        let fields = [("type", "certificate")];
        let template = "certificate-changed";
        let event = self
            .host
            .event(time, Severity::Notice, template, data, &fields);
        self.notify(&event);
    }

    /// Tells that the pin of a remote was changed. Blocks for a small file.
    pub(crate) fn pin_changed(&self, remote: &str, change: &PinChange) {
        let time = Timestamp::now().as_second();
        let prints = (change.from.to_string(), change.to.fingerprint.to_string());
        let event = events::trust_changed(
            &self.host,
            time,
            remote,
            (&prints.0, &prints.1),
            &change.proof.to_string(),
        );
        self.notify(&event);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_stage_begins_where_it_should() {
        for (left, wanted) in [
            (31 * DAY, 0),
            (30 * DAY, 1),
            (14 * DAY, 2),
            (7 * DAY - 1, 3),
            (3 * DAY, 4),
            (DAY, 5),
            (0, 6),
            (-DAY, 6),
        ] {
            assert_eq!(stage(left), wanted, "{left}");
        }
    }

    #[test]
    fn a_certificate_of_six_days_is_not_near_its_end_all_the_time() {
        assert!(!is_near_end(6 * DAY, 3 * DAY));
        assert!(is_near_end(6 * DAY, 2 * DAY));
        assert!(is_near_end(90 * DAY, 30 * DAY));
        assert!(!is_near_end(3650 * DAY, 31 * DAY));
    }
}
