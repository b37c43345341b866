//! Certificates: about to end, and not the expected ones.

use crate::facts::CertificateFacts;
use crate::number::float;
use crate::{Code, Finding, Moment, Scope, State};

const DAY: i64 = 86_400;
/// A certificate that ends within these times is a warning, and critical; in seconds. Those of short-lived certificates are a third
/// and a tenth of their life.
const SOON: i64 = 21 * DAY;
const VERY_SOON: i64 = 5 * DAY;

pub fn judge(certificate: &CertificateFacts, moment: &Moment, findings: &mut Vec<Finding>) {
    let (object, scope) = match &certificate.remote {
        Some(remote) => (format!("remote/{remote}"), Scope::remote(remote)),
        None => ("certificate/own".to_owned(), Scope::default()),
    };
    let ok = |code, evidence: String| Finding::ok(code, &object, &scope, evidence);
    if let Some(validity) = certificate.validity {
        findings.push(expiring(certificate, validity, ok, moment));
    }
    let Some(remote) = &certificate.remote else {
        return;
    };
    let code = Code::CertificateChanged;
    findings.push(match &certificate.untrusted {
        None => ok(code, "it shows the certificate that is expected of it".to_owned()),
        Some(reason) => ok(code, reason.clone()).bad(
            State::Critical,
            None,
            format!(
                "ask its operator whether that is so; 'proxmox-backup-manager remote check {remote}' says how to accept it. Syncs with \
                 it fail until then"
            ),
        ),
    });
}

fn expiring(
    certificate: &CertificateFacts,
    (from, until): (i64, i64),
    ok: impl Fn(Code, String) -> Finding,
    moment: &Moment,
) -> Finding {
    let code = Code::CertificateExpiring;
    let life = until.saturating_sub(from).max(0);
    let (soon, very_soon) = (SOON.min(life / 3), VERY_SOON.min(life / 10));
    let left = until.saturating_sub(moment.now);
    let follows = certificate.next.filter(|next| *next < until);
    let mut text = match left > 0 {
        true => format!("it is valid until {}", moment.ago(until)),
        false => format!("it ended {}", moment.ago(until)),
    };
    if let Some(next) = follows {
        text.push_str(&format!("; another one follows {}", moment.ago(next)));
    }
    let state = match left {
        left if left <= very_soon => State::Critical,
        left if left <= soon => State::Warning,
        _ => State::Ok,
    };
    // One that follows by itself is no trouble before it should have.
    let state = match follows {
        Some(next) if next >= moment.now && left > 0 => State::Ok,
        _ => state,
    };
    let remedy = match &certificate.remote {
        Some(_) => "its operator has to renew it before that; syncs with it fail then",
        None => {
            "renew it: proxmox-backup-manager cert update, or through the authority that issued it"
        }
    };
    let finding = ok(code, text);
    let finding = match state {
        State::Ok => finding,
        state => finding.bad(state, None, remedy),
    };
    finding.measured(float(left), "s", float(soon), float(very_soon))
}
